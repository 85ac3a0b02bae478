"""Exchange rate: how many real training images the synthetic ones of a mixture were worth.

The equivalent of a mixture is the number of real images with which the learning curve of real-only
trainings reaches the mixture's AUC. Its interval inverts a test, as Fieller's does for a ratio: it
holds every number n for which

    D(n) = AUC(mixture) - AUC(n on the curve)

does not differ from 0. Near its fit the curve is linear in the AUCs it was fitted to, so D(n) is a
linear combination of cells that were trained with the same seeds and tested on the same images,
and `effects.effect` gives its interval: over seeds, over test images, and with the uncertainty of
the curve, however these three are correlated. Dividing an interval of D by the slope of the curve
would fail where the curve is flat; this one then has no upper end, as it should.

Sizes outside those measured are never judged: an answer there is a bound. Pure functions on numpy
arrays.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from dermaflux.errors import InputError
from dermaflux.statistics import effects, learning_curve
from dermaflux.statistics.learning_curve import LearningCurve

if TYPE_CHECKING:
    from dermaflux.statistics.seed_means import SeedMean

Bound = Literal["", "at least", "at most"]
_WITHIN: Bound = ""
_AT_LEAST: Bound = "at least"
_AT_MOST: Bound = "at most"
_STEPS = 24  # sizes at which the interval is looked for, evenly in log n, before it is refined


@dataclass(frozen=True)
class Amount:
    """A number of images, or of real images per synthetic one, with its interval."""

    value: float
    low: float | None
    """None where the interval is open: it goes on below what was measured."""
    high: float | None
    bound: Bound = ""
    """Not empty where the value lies beyond the sizes measured and is the nearest of them."""

    def scaled(self, minus: float, per: float) -> Amount:
        """(amount - minus) / per."""
        low, high = (x if x is None else (x - minus) / per for x in (self.low, self.high))
        return Amount((self.value - minus) / per, low, high, self.bound)

    def text(self, digits: int, noun: str) -> str:
        """Such as `35 real ones (-20 to 110)` or `at least 35 real ones (-20 or more)`.

        At least one limit must be known.
        """
        value, low, high = (
            None if x is None else f"{round(x, digits) + 0:,.{digits}f}"  # + 0: no "-0"
            for x in (self.value, self.low, self.high)
        )
        if low is not None and high is not None:
            limits = f"{low} to {high}"
        elif low is not None:
            limits = f"{low} or more"
        else:
            limits = f"{high} or less"
        return " ".join(word for word in (self.bound, value, noun, f"({limits})") if word)


@dataclass(frozen=True)
class ExchangeRate:
    """What the synthetic images of a mixture were worth."""

    real: int
    """Real images in the mixture."""
    synthetic: int
    curve: LearningCurve
    equivalent: Amount
    """Real images alone that reach the mixture's AUC."""

    @property
    def worth(self) -> Amount:
        """Further real images that would have gained as much; negative where the mixture lost."""
        return self.equivalent.scaled(self.real, 1)

    @property
    def each(self) -> Amount:
        """Further real images per synthetic image."""
        return self.equivalent.scaled(self.real, self.synthetic)

    @property
    def told(self) -> bool:
        """Whether anything is excluded."""
        return self.equivalent.low is not None or self.equivalent.high is not None

    @property
    def sentence(self) -> str:
        """`420 synthetic images were worth 35 real ones (-20 to 110): 0.08 each (...)`."""
        if not self.told:
            fewest, most = (self.curve.sizes[end] - self.real for end in (0, -1))
            return (
                f"What {self.synthetic:,} synthetic images were worth in real ones cannot be told: "
                f"every number measured, from {fewest:,} to {most:,}, is possible, and so are "
                "others"
            )
        return (
            f"{self.synthetic:,} synthetic images were worth {self.worth.text(0, 'real ones')}: "
            f"{self.each.text(2, 'each')}"
        )


def exchange_rate(
    curve: Mapping[int, SeedMean],
    mixture: SeedMean,
    real: int,
    synthetic: int,
    confidence: float,
    comparisons: int = 1,
) -> ExchangeRate:
    """What `synthetic` images beside `real` ones were worth.

    `curve`: number of real images -> AUC of the real-only trainings, in the order of the mixture's
    seeds and resamples. Resamples of each seed, (S, B), give the interval its nominal level; means
    over the seeds, (B,), make it somewhat too wide. `comparisons`: as in `effects.effect`. With a
    single seed the interval covers test images only; with neither several seeds nor resamples it
    is open at both ends.
    Raises `InputError` for other numbers of seeds than the mixture's and for a curve that
    `learning_curve.fit` refuses.
    """
    sizes = sorted(curve)
    for size in sizes:
        if len(curve[size].values) != len(mixture.values):
            raise InputError(
                f"there are {len(curve[size].values)} seeds with {size:,} real images and "
                f"{len(mixture.values)} of the mixture, and seeds are compared one by one; train "
                "both with the same train.seeds"
            )
    values = np.array([curve[size].values for size in sizes])
    fitted = learning_curve.fit(sizes, np.array([row.mean() for row in values]))
    resampled = np.array([curve[size].resampled for size in sizes])
    centre = fitted.auc(np.array(sizes, float))

    @functools.cache
    def difference(images: float) -> effects.Effect:
        weights = fitted.weights(np.array([images]))[0]
        offset = float(fitted.auc(images) - weights @ centre)
        return effects.effect(
            mixture.values - offset - weights @ values,
            mixture.resampled - offset - np.tensordot(weights, resampled, 1),
            confidence,
            comparisons,
            cautious=True,
        )

    point = fitted.images(float(mixture.values.mean()))
    return ExchangeRate(real, synthetic, fitted, _equivalent(difference, point, fitted.sizes))


def _equivalent(
    difference: Callable[[float], effects.Effect], point: float, sizes: Sequence[int]
) -> Amount:
    """The numbers of images at which the difference may be 0, from the first to the last."""
    from scipy.optimize import brentq

    smallest, largest = float(sizes[0]), float(sizes[-1])
    value, bound = point, _WITHIN
    if point > largest:
        value, bound = largest, _AT_LEAST
    elif point < smallest:
        value, bound = smallest, _AT_MOST
    if not difference(value).has_interval:
        return Amount(value, None, None, bound)

    def outside(logarithm: float) -> float:
        """Above 0 where the interval of the difference excludes 0."""
        found = difference(math.exp(logarithm))
        return max(found.low, -found.high)

    def value_at(logarithm: float) -> float:
        return difference(math.exp(logarithm)).value

    steps = np.linspace(math.log(smallest), math.log(largest), _STEPS)
    values = np.array([value_at(step) for step in steps])
    # A narrow interval may lie between two steps, around the root of the difference.
    falls = np.flatnonzero((values[:-1] > 0) & (values[1:] <= 0))
    roots = [brentq(value_at, steps[index], steps[index + 1]) for index in falls]
    steps = np.sort([*steps, *roots])
    inside = np.flatnonzero([outside(step) <= 0 for step in steps])
    low = high = None
    if len(inside):
        first, last = inside[0], inside[-1]
        if first > 0:
            low = math.exp(brentq(outside, steps[first - 1], steps[first]))
        if last < len(steps) - 1:
            high = math.exp(brentq(outside, steps[last], steps[last + 1]))
    elif values[-1] > 0:  # beyond the sizes measured, and clearly so
        low = largest
    else:
        high = smallest
    # Where the fit is at a bound, its value can lie beside an interval that forgets the bound.
    low, high = low and min(low, value), high and max(high, value)
    return Amount(value, low, high, bound)
