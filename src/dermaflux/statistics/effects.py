"""Effects of a training arm, with intervals that cover seeds and test images.

An effect is the mean over seeds of AUC(arm) - AUC(real), or of another metric, on one test set.
Another choice of training images and initial weights would give other differences (a sample of S
seeds), and so would another test set (a bootstrap). The variances add:

    SE^2 = s^2 / S + var_B(resampled mean),

with Student's t at the degrees of freedom of Welch (1947) and Satterthwaite (1946), where the
bootstrap variance is treated as known. It is the two-way model of reader studies (Obuchowski and
Rockette 1995) with seeds instead of readers; the interaction of seed and test image enters both
terms, which makes the interval slightly too wide rather than too narrow, unless each seed is
resampled by itself. With one seed the interval covers the test sample only. Pure functions on numpy
arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dermaflux.core.arrays import Array


@dataclass(frozen=True)
class Effect:
    """A difference with its interval and the two-sided p-value of the hypothesis that it is 0."""

    value: float
    low: float
    high: float
    p: float
    """Not corrected for multiple comparisons; see `holm`."""
    seeds: int = 1

    @property
    def has_interval(self) -> bool:
        """Whether the limits are numbers."""
        return not math.isnan(self.low)


def effect(
    differences: Array,
    resampled_means: Array,
    confidence: float,
    comparisons: int = 1,
    cautious: bool = False,
) -> Effect:
    """The mean of `differences` (S,), one per seed, with its interval.

    `resampled_means` (B,) are means over the same seeds on B resamples of the test set; without
    any (B = 0) the interval covers the seeds only, and is NaN for a single seed. As (S, B), of each
    seed, they tell what the interaction of seed and test image contributes, which then counts once
    and not twice; with `cautious`, of `standard_error`, the interval has its nominal level however
    large that is. With `comparisons` above 1 these are simultaneous intervals: each has level
    1 - (1 - confidence) / comparisons (Bonferroni).
    """
    from scipy.special import stdtr

    count = len(differences)
    value = float(np.mean(differences))
    over_seeds, over_images = variances(differences, resampled_means)
    if math.isnan(over_seeds) and math.isnan(over_images):
        return Effect(value, math.nan, math.nan, math.nan, count)
    error, freedom = standard_error(over_seeds, over_images, count, cautious)
    if error < 1e-12:
        return Effect(value, value, value, 1.0 if abs(value) < 1e-12 else 0.0, count)
    half = critical(freedom, confidence, comparisons) * error
    p = float(2 * stdtr(freedom, -abs(value) / error))
    return Effect(value, value - half, value + half, p, count)


def variances(differences: Array, resampled: Array) -> tuple[float, float]:
    """Variances of the mean over other seeds and over other test images, as `effect` takes them.

    The first is NaN for a single seed, the second for fewer than two resamples.
    """
    seeds, resamples = len(differences), resampled.shape[-1]
    over_seeds = float(np.var(differences, ddof=1)) / seeds if seeds > 1 else math.nan
    if resamples < 2:
        return over_seeds, math.nan
    each_seed = resampled.ndim == 2
    over_images = float(np.var(resampled.mean(axis=0) if each_seed else resampled, ddof=1))
    if each_seed and seeds > 1:
        # The mean covariance of two seeds; the rest of a seed's variance is in `over_seeds` too.
        interaction = (float(np.var(resampled, axis=1, ddof=1).mean()) - over_images) / (seeds - 1)
        over_images = max(over_images - interaction, 0.0)
    return over_seeds, over_images


def standard_error(
    over_seeds: float, over_images: float, seeds: int, cautious: bool = False
) -> tuple[float, float]:
    """Standard error of the mean of `seeds` differences, and its degrees of freedom.

    A variance that is NaN is not covered. Where few seeds differ little by chance, Satterthwaite's
    degrees of freedom are many just when the error is underestimated: intervals of nominally 95 %
    cover 92 to 95 % with three seeds and 87 to 95 % with two. `cautious` counts the degrees of
    freedom at the one-sided 75 % confidence limit of the variance over seeds, and covers 95 to
    96 % and 94 to 97 %.
    """
    from scipy.special import chdtri

    over_seeds, over_images = (0.0 if math.isnan(x) else x for x in (over_seeds, over_images))
    freedom = math.inf
    if over_seeds > 0:
        assumed = over_seeds
        if cautious:
            assumed *= (seeds - 1) / float(chdtri(seeds - 1, 0.75))  # 0.75: the upper tail
        freedom = (seeds - 1) * ((assumed + over_images) / assumed) ** 2
    # scipy's t has no infinite degrees of freedom; 1e9 is normal.
    return math.sqrt(over_seeds + over_images), min(freedom, 1e9)


def critical(freedom: float, confidence: float, comparisons: int = 1) -> float:
    """How many standard errors from 0 a significant mean lies (Student, Bonferroni)."""
    from scipy.special import stdtrit

    level = 1 - (1 - confidence) / comparisons
    return float(stdtrit(freedom, (1 + level) / 2))


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted by Holm's step-down method, in the order of `p` (Holm 1979).

    Rejecting every hypothesis whose adjusted value is below a level keeps the family-wise error
    rate below that level. NaN stays NaN and is not counted as a comparison.
    """
    # Not statsmodels' `multipletests`: equal on 1,000 random families, and it would add 45 MB and
    # five packages (patsy, formulaic, ...) for these lines. scipy has no Holm.
    known = [index for index, value in enumerate(p) if not math.isnan(value)]
    adjusted = list(p)
    running = 0.0
    for rank, index in enumerate(sorted(known, key=lambda index: p[index])):
        running = max(running, min(1.0, (len(known) - rank) * p[index]))
        adjusted[index] = running
    return adjusted
