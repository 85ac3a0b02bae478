"""A figure with its 95 % interval, or the reason why there is none. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from dermaflux.core.arrays import Array

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
    from scipy.special import betaincinv

    low = betaincinv(count, total - count + 1, 0.025) if count else 0.0
    high = betaincinv(count + 1, total - count, 0.975) if count < total else 1.0
    return Interval(count / total, float(low), float(high))


def quantile(values: Array, part: float) -> Interval:
    """A quantile of values (N,), N >= 1, with limits that hold whatever their distribution is.

    `low` is the value of rank l, `high` that of rank u, where a binomial variable of as many trials
    with probability `part` lies in [l, u) in 95 % of cases (Conover 1999, section 3.2); the
    smallest or largest value where there are too few.
    """
    import numpy as np
    from scipy.stats import binom

    ordered = np.sort(values)
    low, high = (int(rank) for rank in binom.ppf([0.025, 0.975], len(ordered), part))
    limits = ordered[max(low - 1, 0)], ordered[min(high, len(ordered) - 1)]
    return Interval(float(np.quantile(ordered, part)), *map(float, limits))


def missing(reason: str) -> dict[str, Any]:
    """What stands in place of a figure that cannot be given."""
    return {"value": None, "low": None, "high": None, "reason": reason}


def too_few(count: int, others: int, needed: int) -> str:
    """The reason why there is no figure of two sets of images."""
    return f"needs {needed} images on either side, and there are {count:,} and {others:,}"
