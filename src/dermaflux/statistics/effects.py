"""Effects of a training arm, with intervals for both of their sources of chance.

An effect is the mean over seeds of AUC(arm) - AUC(real), or of another figure, on one test set.
Another draw of training images and initial weights would give other differences (a sample of S
seeds), and another test set would too (a bootstrap). The variances add:

    SE^2 = s^2 / S + var_B(resampled mean),

with Student's t at the degrees of freedom of Welch (1947) and Satterthwaite (1946), the bootstrap
counting as known. It is the two-way model of reader studies (Obuchowski and Rockette 1995), seeds
in the place of readers; the interaction of seed and test image enters both terms, which makes the
interval a little too wide rather than too narrow. One seed says nothing of seeds: the interval then
covers the test sample alone. Pure functions on numpy arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dermaflux.core.arrays import Array


@dataclass(frozen=True)
class Effect:
    """A difference with its interval and the two-sided p of the hypothesis that it is 0."""

    value: float
    low: float
    high: float
    p: float
    """Not corrected; see `holm`."""
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
    any (B = 0) the interval covers the seeds alone, and NaN stands where there is one seed.
    `comparisons` intervals of level 1 - (1 - confidence) / comparisons hold all at once with
    `confidence` (Bonferroni).
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
    freedom = min(freedom, 1e9)  # scipy's t knows no infinity; there it is the normal law
    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    p = float(2 * stdtr(freedom, -abs(value) / error))
    return Effect(value, value - half, value + half, p, count)


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in the order given (Holm 1979).

    All that fall below a level may be called at that level together: the chance of one false call
    among them stays below it. NaN stays NaN and counts as no comparison.
    """
    known = [index for index, value in enumerate(p) if not math.isnan(value)]
    adjusted = list(p)
    running = 0.0
    for rank, index in enumerate(sorted(known, key=lambda index: p[index])):
        running = max(running, min(1.0, (len(known) - rank) * p[index]))
        adjusted[index] = running
    return adjusted
