"""Effects over seeds and test images: closed forms, coverage by simulation, Holm's correction."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from dermaflux.statistics import effects


def test_the_two_limits_are_student_over_seeds_and_normal_over_images() -> None:
    differences = np.array([0.03, 0.05, 0.01, 0.04])
    seeds = effects.effect(differences, np.empty(0), 0.9)
    reference = stats.ttest_1samp(differences, 0)
    limits = reference.confidence_interval(0.9)
    assert (seeds.low, seeds.high) == pytest.approx((limits.low, limits.high))
    assert seeds.p == pytest.approx(reference.pvalue)
    means = np.random.default_rng(0).normal(0.02, 0.01, 5000)
    images = effects.effect(np.array([0.02]), means, 0.95)
    assert (images.high - images.low) / 2 == pytest.approx(1.959964 * means.std(ddof=1), rel=1e-6)
    assert images.p == pytest.approx(2 * stats.norm.sf(0.02 / means.std(ddof=1)), rel=1e-6)
    neither = effects.effect(np.array([0.02]), np.empty(0), 0.95)
    assert not neither.has_interval
    assert math.isnan(neither.p)


def test_an_arm_that_is_the_other_has_no_effect() -> None:
    none = effects.effect(np.zeros(5), np.zeros(100), 0.95)
    assert (none.value, none.low, none.high, none.p) == (0, 0, 0, 1)


def test_intervals_of_several_comparisons_are_those_of_a_stricter_level() -> None:
    differences, means = np.array([0.01, 0.03]), np.random.default_rng(1).normal(0, 0.01, 500)
    wide = effects.effect(differences, means, 0.95, comparisons=5)
    strict = effects.effect(differences, means, 0.99)
    assert (wide.low, wide.high) == pytest.approx((strict.low, strict.high))
    assert wide.p == strict.p


def test_holm_agrees_with_r_and_with_closed_testing() -> None:
    """R: p.adjust(c(.01, .02, .03, .04, .05), "holm") and one out of order with a gap."""
    assert effects.holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx(
        [0.05, 0.08, 0.09, 0.09, 0.09]
    )
    with_gap = effects.holm([0.04, math.nan, 0.01, 0.03])
    assert [with_gap[0], with_gap[2], with_gap[3]] == pytest.approx([0.06, 0.03, 0.06])
    assert math.isnan(with_gap[1])
    assert effects.holm([0.6, 0.9]) == [1, 1]
    # Holm is the closed test of Bonferroni's: a hypothesis is rejected when every family that
    # contains it is (Marcus, Peritz and Gabriel 1976).
    p = np.random.default_rng(3).random(7) ** 3
    families = [family for size in range(1, 8) for family in combinations(range(7), size)]
    for index, adjusted in enumerate(effects.holm(list(p))):
        bonferroni = [len(family) * min(p[list(family)]) for family in families if index in family]
        assert adjusted == pytest.approx(min(1.0, max(bonferroni)))


@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.02), (5, 0.005), (5, 0.0)])
def test_intervals_cover_new_seeds_and_new_test_images(seeds: int, spread: float) -> None:
    """Differences per image: truth + test image + seed + both; the mean over images is the effect.

    An interval over seeds alone covers far less, because the test images are shared by all seeds.
    """
    generator = np.random.default_rng(9)
    trials, images, resamples = 600, 60, 200
    covered, alone = 0, 0
    for _ in range(trials):
        image = generator.normal(0, 0.1, images)
        both = generator.normal(0, 0.05, (seeds, images))
        values = 0.01 + image + generator.normal(0, spread, (seeds, 1)) + both
        weights = generator.multinomial(images, np.full(images, 1 / images), resamples) / images
        differences = values.mean(axis=1)
        both_sources = effects.effect(differences, weights @ values.mean(axis=0), 0.95)
        covered += both_sources.low <= 0.01 <= both_sources.high
        seeds_only = effects.effect(differences, np.empty(0), 0.95)
        alone += seeds_only.low <= 0.01 <= seeds_only.high
    assert 0.925 <= covered / trials <= 0.985
    assert alone / trials < 0.93
