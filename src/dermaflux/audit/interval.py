"""A figure with its 95 % interval, or the reason why there is none. Pure."""

from __future__ import annotations

from typing import NamedTuple

NORMAL = 1.96
"""Standard errors from the middle of a normal distribution to its 2.5 and 97.5 % quantiles."""


class Interval(NamedTuple):
    """A figure and the limits of its 95 % interval."""

    value: float
    low: float
    high: float


def around(value: float, error: float) -> Interval:
    """Of an estimate with a normal distribution of that standard error."""
    return Interval(value, value - NORMAL * error, value + NORMAL * error)


def share(count: int, total: int) -> Interval:
    """Of `count` in `total` > 0: the exact limits of Clopper and Pearson (1934)."""
    from scipy.stats import binomtest

    limits = binomtest(count, total).proportion_ci(0.95)
    return Interval(count / total, float(limits.low), float(limits.high))
