"""Effects of a training arm, with intervals that cover seeds and test images.

An effect is the mean over seeds of AUC(arm) - AUC(real), or of another metric, on one test set.
Another choice of training images and initial weights would give other differences (a sample of S
seeds), and so would another test set (a bootstrap). The variances add:

    SE^2 = s^2 / S + var_B(resampled mean),

with Student's t at the degrees of freedom of Welch (1947) and Satterthwaite (1946), where the
bootstrap variance is treated as known. It is the two-way model of reader studies (Obuchowski and
Rockette 1995) with seeds instead of readers; the interaction of seed and test image enters both
terms, which makes the interval slightly too wide rather than too narrow. With one seed the interval
covers the test sample only. Pure functions on numpy arrays.
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
    differences: Array, resampled_means: Array, confidence: float, comparisons: int = 1
) -> Effect:
    """The mean of `differences` (S,), one per seed, with its interval.

    `resampled_means` (B,) are means over the same seeds on B resamples of the test set; without
    any (B = 0) the interval covers the seeds only, and is NaN for a single seed. With
    `comparisons` above 1 these are simultaneous intervals: each has level
    1 - (1 - confidence) / comparisons (Bonferroni).
    """
    from scipy.special import stdtr, stdtrit

    count = len(differences)
    value = float(np.mean(differences))
    over_seeds = float(np.var(differences, ddof=1)) / count if count > 1 else 0.0
    over_images = float(np.var(resampled_means, ddof=1)) if len(resampled_means) > 1 else 0.0
    if count < 2 and len(resampled_means) < 2:
        return Effect(value, math.nan, math.nan, math.nan, count)
    error = math.sqrt(over_seeds + over_images)
    if error < 1e-12:
        return Effect(value, value, value, 1.0 if abs(value) < 1e-12 else 0.0, count)
    freedom = math.inf
    if over_seeds > 0:
        freedom = (count - 1) * ((over_seeds + over_images) / over_seeds) ** 2
    level = 1 - (1 - confidence) / comparisons
    freedom = min(freedom, 1e9)  # scipy's t has no infinite degrees of freedom; 1e9 is normal
    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    p = float(2 * stdtr(freedom, -abs(value) / error))
    return Effect(value, value - half, value + half, p, count)


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
