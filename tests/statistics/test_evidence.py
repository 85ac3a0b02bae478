"""What a run says about its synthetic images, on simulated runs whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from dermaflux.statistics import evidence
from dermaflux.statistics.evidence import Evidence
from dermaflux.statistics.seed_means import SeedMean

SIZES = {"real": 240, "more_real": 660, "real_x0.5": 120}


def curve(images: float) -> float:
    return 0.9 - 1.2 * images**-0.3


def run(worth: float, noise: float, seeds: int = 5, arms: tuple[str, ...] = ()) -> Evidence:
    """Evidence of 420 synthetic images that are worth `worth` real ones."""
    draw, images = np.random.default_rng(3), SIZES | {"mixture": 240 + worth}
    shared = draw.normal(0, noise, 1000)
    means = {}
    for arm in arms or images:
        values = curve(images[arm]) + draw.normal(0, noise, seeds)
        each = values[:, None] + shared + draw.normal(0, noise / 4, (seeds, 1000))
        means[arm] = SeedMean(values, each.mean(axis=0), each)
    found = evidence.of(means, SIZES, 420, 1000, 0.95, 1)
    assert found is not None
    return found


def test_a_run_that_sees_says_what_images_were_worth() -> None:
    found = run(worth=420, noise=0.002)
    assert found.rate is not None
    assert found.rate.worth.value == pytest.approx(420, abs=60)
    assert found.rate.sentence.startswith("420 synthetic images were worth ")
    assert found.ceiling is not None
    assert found.ceiling.value == pytest.approx(curve(660) - curve(240), abs=0.005)
    assert found.gain.low > 0
    assert found.detectable is not None
    assert found.detectable < found.ceiling.value
    assert not found.blind
    assert found.needed.seeds is not None
    assert found.needed.seeds <= 5


def test_a_run_that_could_not_have_seen_the_ceiling_is_blind() -> None:
    found = run(worth=0, noise=0.08, seeds=3)
    assert found.detectable is not None
    assert found.ceiling is not None
    assert found.detectable > found.ceiling.value
    assert found.blind
    assert found.needed.seeds is None or found.needed.seeds > 3


def test_without_the_arms_it_says_what_is_missing() -> None:
    assert evidence.of({}, SIZES, 420, 1000, 0.95, 1) is None
    found = run(worth=0, noise=0.01, arms=("real", "mixture"))
    assert (found.rate, found.ceiling, found.blind) == (None, None, False)
    assert "needs real-only trainings at 3 or more numbers of real images" in found.why_no_rate
    assert run(worth=0, noise=0.01, seeds=1).needed.seeds is None
