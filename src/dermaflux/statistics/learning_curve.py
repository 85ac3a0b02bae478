"""Learning curve of a classifier: AUC over the number of real training images.

An inverse power law, as measured for medical images (Figueroa et al. 2012, BMC Medical Informatics
12:8) and for networks in general (Hestness et al. 2017, arXiv 1712.00409):

    AUC(n) = a - b n^-c,    b > 0, EXPONENTS[0] <= c <= EXPONENTS[1], a <= 1,

so it rises and levels off at `a`. It is fitted by least squares to the mean AUC at each size and
is to be read between the smallest and the largest size only. Pure functions on numpy arrays.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dermaflux.core.arrays import Array
from dermaflux.errors import InputError

FEWEST_SIZES = 3  # the law has three parameters
CEILING = 0.995
"""From this AUC on at every size there is no room in which more images could show anything."""
EXPONENTS = (0.01, 2.0)
"""Bounds of c: nearly a straight line over log n, and nearly a step after the smallest size.
Measured exponents lie between 0.05 and 1."""
_FLAT = 1e-4  # AUC from the smallest size to the largest: what the fifth digit of a table shows


@dataclass(frozen=True)
class LearningCurve:
    """AUC(n) = asymptote - coefficient n^-exponent."""

    asymptote: float
    coefficient: float
    exponent: float
    sizes: tuple[int, ...]
    """Numbers of real images it was fitted to, rising."""

    def auc(self, images: Array | float) -> Array:
        """AUC at each number of real images, of the shape of `images`."""
        relative = np.power(np.asarray(images, float), -self.exponent)
        return np.asarray(self.asymptote - self.coefficient * relative)

    def images(self, auc: float) -> float:
        """Number of real images with this AUC; infinite from the asymptote on."""
        if auc >= self.asymptote:
            return math.inf
        # By its logarithm, which a small exponent does not overflow.
        logarithm = math.log(self.coefficient / (self.asymptote - auc)) / self.exponent
        return math.exp(min(logarithm, 700.0))

    def weights(self, images: Array) -> Array:
        """(N, K) weights of the K sizes in the fitted AUC at N numbers of images.

        To first order the fit is linear in what it was fitted to: with other AUCs y at its sizes,
        AUC(n) changes by weights(n) @ (y - fitted y). Rows sum to 1. They are those of the law
        without its bounds: a parameter at a bound would seem to be known, and an interval from
        these weights would be too narrow.
        """
        return np.asarray(_slopes(images, self.sizes[0], self.exponent) @ self._projection)

    @functools.cached_property
    def _projection(self) -> Array:
        slopes = _slopes(np.array(self.sizes, float), self.sizes[0], self.exponent)
        return np.asarray(np.linalg.pinv(slopes))


def fit(sizes: Sequence[int], aucs: Array) -> LearningCurve:
    """The curve through mean AUCs (K,) at K numbers of real images, in any order.

    Raises `InputError` for fewer than three sizes, a curve that does not rise, and one that is at
    its ceiling.
    """
    from scipy.optimize import least_squares

    order = np.argsort(sizes)
    images, values = np.asarray(sizes, float)[order], np.asarray(aucs, float)[order]
    _check(images, values)
    smallest, largest = images[0], images[-1]

    def powers(exponent: float) -> Array:
        return np.asarray(np.power(images / smallest, -exponent))

    def residuals(parameters: Array) -> Array:
        asymptote, gain, exponent = parameters
        return np.asarray(asymptote - gain * powers(exponent) - values)

    def jacobian(parameters: Array) -> Array:
        slopes = _slopes(images, smallest, parameters[2])
        return np.asarray(slopes * np.array([1, -1, parameters[1]]))

    # The gain is that from the smallest size to the asymptote, which is b in units of its power.
    lowest, highest = (-np.inf, 0.0, EXPONENTS[0]), (1.0, np.inf, EXPONENTS[1])
    starts = [_line(powers(c), values, c) for c in np.geomspace(*EXPONENTS, 8)]
    start = min(starts, key=lambda parameters: float((residuals(parameters) ** 2).sum()))
    found = least_squares(
        residuals, start, jacobian, (lowest, highest), method="dogbox", xtol=1e-10, ftol=1e-12
    )
    asymptote, gain, exponent = map(float, found.x)
    if gain * (1 - (largest / smallest) ** -exponent) < _FLAT:
        listed = ", ".join(
            f"{value:.3f} at {size:,.0f}" for size, value in zip(images, values, strict=True)
        )
        raise InputError(
            f"the AUC does not rise with the number of real images ({listed}), so no number of "
            "them can stand for synthetic images; use sizes further apart, more seeds or more "
            "training epochs"
        )
    coefficient = gain * smallest**exponent
    return LearningCurve(asymptote, coefficient, exponent, tuple(int(size) for size in images))


def _slopes(images: Array, smallest: float, exponent: float) -> Array:
    """(N, 3) derivatives by asymptote, -gain and exponent / gain; what they span is what counts."""
    relative = np.asarray(images, float) / smallest
    power = np.power(relative, -exponent)
    return np.asarray(np.column_stack([np.ones_like(power), power, np.log(relative) * power]))


def _line(power: Array, values: Array, exponent: float) -> Array:
    """Asymptote and gain that fit best with this exponent, within their bounds."""
    slope, intercept = np.polynomial.polynomial.polyfit(power, values, 1)[::-1]
    if slope >= 0:
        return np.array([min(values.mean(), 1.0), 0.0, exponent])
    if intercept > 1:  # the asymptote is at its bound: the gain alone is free
        intercept, slope = 1.0, min(0.0, -float(power @ (1 - values) / (power @ power)))
    return np.array([intercept, -slope, exponent])


def _check(images: Array, values: Array) -> None:
    different = len(np.unique(images))
    if different < FEWEST_SIZES:
        raise InputError(
            f"a learning curve needs real-only trainings at {FEWEST_SIZES} or more numbers of real "
            f"images, and there are {different}; add some to train.curve"
        )
    if len(images) != different or images[0] < 1 or not np.isfinite(values).all():
        raise ValueError(f"sizes {images} with AUCs {values}: one finite AUC for each size")
    if values.min() >= CEILING:
        raise InputError(
            f"the AUC is {values.min():.4f} or more at every size and so at its ceiling "
            f"({CEILING} and more), where further images can show nothing; use fewer real images "
            "or a harder test split"
        )
