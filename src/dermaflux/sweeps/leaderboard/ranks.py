"""Ranks that say what is not known. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

Limits = tuple[float | None, float | None]


def ranges(intervals: Sequence[Limits]) -> list[tuple[int, int]]:
    """(best, worst) rank of each of N intervals of what is ranked; 1 is the highest.

    A rank is passed on only where one interval lies wholly above another, so intervals that overlap
    share ranks. Where the intervals hold all true values at once with some probability, the ranges
    hold all true ranks with at least that one (Klein, Wright and Wieczorek 2020, Journal of the
    Royal Statistical Society C 69:589). None is an open end.
    """
    limits = [
        (-math.inf if low is None else low, math.inf if high is None else high)
        for low, high in intervals
    ]
    return [
        (
            1 + sum(other_low > high for other_low, _ in limits),
            len(limits) - sum(other_high < low for _, other_high in limits),
        )
        for low, high in limits
    ]


def text(best: int, worst: int) -> str:
    """`2`, or `1 to 3`."""
    return f"{best}" if best == worst else f"{best} to {worst}"


def joint_confidence(confidence: float, comparisons: Sequence[int]) -> float:
    """Confidence that all of several intervals hold at once, at least.

    Each has its error of 1 - `confidence` divided by its number of comparisons (Bonferroni).
    """
    return max(0.0, 1 - (1 - confidence) * sum(1 / count for count in comparisons))
