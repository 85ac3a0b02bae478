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


@pytest.mark.parametrize(
    ("seeds", "share", "plain", "cautious"),
    [
        (3, 0.1, (0.91, 0.935), (0.94, 0.96)),
        (3, 0.6, (0.935, 0.955), (0.95, 0.975)),
        (5, 0.2, (0.93, 0.95), (0.94, 0.96)),
        (5, 0.0, (0.94, 0.96), (0.94, 0.96)),
    ],
)
def test_cautious_degrees_of_freedom_cover_95_of_100_with_few_seeds(
    seeds: int, share: float, plain: tuple[float, float], cautious: tuple[float, float]
) -> None:
    """`share` of the variance is over test images; it is known, as `effect` supposes."""
    random = np.random.default_rng(2)
    trials, covered = 5000, np.zeros(2)
    images = math.sqrt(share)
    resamples = images * np.array([-1, 1]) / math.sqrt(2)  # with exactly this variance
    for _ in range(trials):
        differences = random.normal(0, math.sqrt((1 - share) * seeds), seeds)
        differences += random.normal(0, images)
        for choice in (0, 1):
            found = effects.effect(differences, resamples, 0.95, cautious=bool(choice))
            covered[choice] += found.low <= 0 <= found.high
    assert plain[0] <= covered[0] / trials <= plain[1]
    assert cautious[0] <= covered[1] / trials <= cautious[1]


def test_of_resampled_seeds_only_what_two_share_counts_as_test_images() -> None:
    random = np.random.default_rng(4)
    differences = random.normal(0, 0.02, 4)
    resampled = random.normal(0, 0.01, (4, 300)) + random.normal(0, 0.005, 300)
    over_seeds, over_images = effects.variances(differences, resampled)
    assert over_seeds == pytest.approx(differences.var(ddof=1) / 4)
    covariances = np.cov(resampled)[~np.eye(4, dtype=bool)]
    assert over_images == pytest.approx(covariances.mean())
    assert effects.variances(differences, resampled - resampled.mean(axis=0))[1] == 0
    single = effects.variances(differences[:1], resampled[:1])
    assert math.isnan(single[0])
    assert single[1] == pytest.approx(resampled[0].var(ddof=1))


def test_resampled_seeds_keep_the_level_where_seeds_disagree_on_images() -> None:
    """As test images they would count twice, and intervals would cover 98 of 100."""
    random = np.random.default_rng(6)
    trials, seeds, images, covered = 1500, 5, 50, np.zeros(2)
    for _ in range(trials):
        own = random.normal(0, 0.2, (seeds, images))
        values = own + random.normal(0, 0.02, images) + random.normal(0, 0.02, (seeds, 1))
        weights = random.multinomial(images, np.full(images, 1 / images), 150) / images
        each = values @ weights.T
        for choice, resampled in enumerate((each, each.mean(axis=0))):
            found = effects.effect(values.mean(axis=1), resampled, 0.95, cautious=True)
            covered[choice] += found.low <= 0 <= found.high
    assert 0.935 <= covered[0] / trials <= 0.965
    assert covered[1] / trials > 0.97
