"""Power against published sample sizes, the normal distribution, scipy and simulated runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dermaflux.statistics import effects
from dermaflux.statistics.power import Criterion, minimum_detectable, seeds_needed

NONE = np.empty(0)
USUAL = Criterion(0.95)


@pytest.mark.parametrize(("size", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_are_those_of_the_paired_t_test(size: float, seeds: int) -> None:
    """R: power.t.test(delta = size, power = 0.8, type = "one.sample"), rounded up; G*Power 3."""
    assert seeds_needed(size, 1.0, 0.0, USUAL, most_seeds=500).seeds == seeds
    assert seeds_needed(size, 1.0, math.nan, USUAL, most_seeds=500).seeds == seeds


def test_over_seeds_alone_the_statistic_is_scipys_noncentral_t() -> None:
    differences = np.array([0.03, 0.05, 0.01, 0.04, 0.02])
    found = minimum_detectable(differences, NONE, Criterion(0.9, power=0.7))
    error = stats.sem(differences)
    assert stats.nct.sf(stats.t.ppf(0.95, 4), 4, (found or 0) / error) == pytest.approx(0.7)


def test_over_test_images_alone_it_is_normal_and_stricter_for_several_comparisons() -> None:
    means = np.random.default_rng(0).normal(0, 0.01, 1000)
    deviation = means.std(ddof=1)
    found = minimum_detectable(np.array([0.02]), means, USUAL)
    assert found == pytest.approx((1.959964 + 0.841621) * deviation, rel=1e-5)
    several = minimum_detectable(np.array([0.02]), means, Criterion(0.95, comparisons=5))
    assert several == pytest.approx((2.575829 + 0.841621) * deviation, rel=1e-5)


def test_a_run_that_shows_nothing_of_chance_tells_nothing() -> None:
    """One seed without resamples, and AUCs of 1 throughout."""
    assert minimum_detectable(np.array([0.02]), NONE, USUAL) is None
    assert minimum_detectable(np.zeros(5), np.zeros(100), USUAL) is None
    assert minimum_detectable(np.zeros(1), np.zeros(100), USUAL) is None
    for over_seeds in (0.0, math.nan):
        needed = seeds_needed(0.02, over_seeds, 0.0, USUAL, 1000)
        assert (needed.seeds, needed.test_images) == (None, None)
        assert "both have an AUC of 1" in needed.reason


@pytest.mark.parametrize("cautious", [False, True])
@pytest.mark.parametrize(("seeds", "image_noise"), [(3, 0.02), (5, 0.01), (5, 0.03)])
def test_simulated_runs_call_the_least_detectable_difference_in_80_of_100(
    seeds: int, image_noise: float, cautious: bool
) -> None:
    """Where both vary, Satterthwaite's degrees of freedom are an approximation."""
    random = np.random.default_rng(1)
    trials, deviation = 4000, 0.04
    criterion = Criterion(0.95, cautious=cautious)
    truth = criterion.detectable(deviation**2 / seeds, image_noise**2, seeds)
    called = 0
    two = np.array([-1, 1]) * image_noise / math.sqrt(2)  # resamples with exactly this variance
    for _ in range(trials):
        differences = truth + random.normal(0, deviation, seeds) + random.normal(0, image_noise)
        found = effects.effect(differences, differences.mean() + two, 0.95, cautious=cautious)
        called += found.low > 0
    assert 0.75 <= called / trials <= 0.82


@pytest.mark.parametrize("difference", [0.05, 0.03, 0.025])
def test_one_seed_fewer_than_needed_does_not_see_the_difference(difference: float) -> None:
    needed = seeds_needed(difference, 0.02**2, 0.008**2, USUAL)
    assert needed.seeds is not None
    assert needed.reason == ""

    def least(seeds: int) -> float:
        return USUAL.detectable(0.02**2 / seeds, 0.008**2, seeds)

    assert least(needed.seeds) <= difference < least(needed.seeds - 1)
    assert seeds_needed(1.0, 0.02**2, 0.008**2, USUAL).seeds == 2  # one has no variance


def test_where_test_images_hide_a_difference_their_number_is_named() -> None:
    hidden = seeds_needed(0.02, 0.02**2, 0.01**2, USUAL, test_images=1000)
    assert hidden.seeds is None
    images = hidden.test_images or 0
    assert 1900 < images < 2200  # with all seeds of the world ((1.96 + 0.84) / 2)^2 times 1,000
    for count, seen in ((images, True), (images - 1, False)):
        scaled = seeds_needed(0.02, 0.02**2, 0.01**2 * 1000 / count, USUAL)
        assert (scaled.seeds is not None) == seen
    assert f"{images:,} test images in place of 1,000" in hidden.reason
    assert "not one of 0.0200" in hidden.reason
    unknown = seeds_needed(0.02, 0.02**2, 0.01**2, USUAL)
    assert (unknown.seeds, unknown.test_images) == (None, None)


def test_seeds_that_differ_too_much_and_a_single_one_have_reasons() -> None:
    scattered = seeds_needed(0.001, 0.02**2, 0.01**2, USUAL, test_images=1000)
    assert (scattered.seeds, scattered.test_images) == (None, None)
    assert "seeds differ too much" in scattered.reason
    single = seeds_needed(0.02, math.nan, 0.01**2, USUAL, test_images=1000)
    assert (single.seeds, single.test_images) == (None, None)
    assert "one seed" in single.reason
    with pytest.raises(ValueError, match="above 0"):
        seeds_needed(0.0, 0.02**2, 0.01**2, USUAL)
