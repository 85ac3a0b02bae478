"""Frechet distance of two sets of features: FID where a trunk is Inception, FD for any other.

Of normal distributions with the means and covariances of the sets (Heusel et al. 2017, GANs Trained
by a Two Time-Scale Update Rule, equation 6):

    |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2).

No unit; lower is closer. Few images make it too large: two halves of one data set have a positive
distance, so a figure means something beside that of as many real images. Pure functions on feature
matrices (N, D).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from dermaflux.audit.fidelity.products import Products
from dermaflux.audit.interval import Interval, around
from dermaflux.core.arrays import Array

_BLOCK = 4096  # rows in float64 at a time
_RANK = 1e-10  # eigenvalues below this share of the largest are rounding errors


@dataclass(frozen=True)
class _Side:
    """One of the two sets; A (r, D) is a factor of its covariance A'A, m its mean."""

    along: Array
    """(N,) of each image: x - m times the difference of the means, its own less the other."""
    lengths: Array
    """(N,) |x - m|^2."""
    quadratic: Callable[[Array, Array], Array]
    """L (r, k) and values (k,) -> (N,) c'L diag(values) L'c of each image, x - m = A'c."""

    def trace(self) -> float:
        """Of the covariance."""
        return float(self.lengths.sum()) / (len(self.lengths) - 1)

    def variance(self, vectors: Array, values: Array) -> float:
        """Of the distance, over other images in place of these."""
        count = len(self.lengths)
        spread = self.lengths - self.quadratic(vectors, values)
        slopes = 2 * self.along + count / (count - 1) * spread
        return float(np.var(slopes, ddof=1)) / count


def frechet_distance(synthetic: Array, real: Array) -> Interval:
    """The distance of (N, D) and (M, D), N and M at least 2, over other images of both kinds.

    The interval holds the mean of the distances of as many images, which is larger than that of
    very many, with 95 %: the infinitesimal jackknife (Jaeckel 1972; Efron 1982, The Jackknife, the
    Bootstrap and Other Resampling Plans, chapter 6). A bootstrap would draw images twice, which
    lowers the rank of a covariance and so shifts the distance itself.
    """
    means = [each.mean(axis=0, dtype=np.float64) for each in (synthetic, real)]
    shift = means[0] - means[1]
    left, of_left = _side(synthetic, means[0], shift)
    right, of_right = _side(real, means[1], -shift)
    return _distance(float(shift @ shift), of_left @ of_right.T, left, right)


def frechet_distance_of_products(products: Products) -> Interval:
    """`frechet_distance` from scalar products: faster where images are fewer than features."""
    ours, between, theirs = products
    left, right = between.mean(axis=1), between.mean(axis=0)
    sides = []
    for within, across in ((ours, left), (theirs, right)):
        rows, count = within.mean(axis=1), len(within)
        along = rows - across
        lengths = np.diag(within) - 2 * rows + rows.mean()
        sides.append(_Side(along - along.mean(), lengths, _of_rows(count)))
    centred = between - left[:, None] - right + between.mean()
    cross = centred / np.sqrt((len(ours) - 1) * (len(theirs) - 1))
    shift = max(float(ours.mean() + theirs.mean() - 2 * between.mean()), 0.0)
    return _distance(shift, cross, *sides)


def _distance(shift: float, cross: Array, left: _Side, right: _Side) -> Interval:
    """From |m1 - m2|^2 and A B' (r, s), A and B factors of the covariances."""
    # Not torch-fidelity's: it takes the eigenvalues of the D x D product S1 S2, minutes for D =
    # 3072, and gives no error. Its value differs from ours by less than 1e-6 (test_frechet).
    # (S1 S2)^(1/2) has the trace of the singular values of A B'.
    first, values, second = np.linalg.svd(cross, full_matrices=False)
    variance = left.variance(first, values) + right.variance(second.T, values)
    value = shift + left.trace() + right.trace() - 2 * float(values.sum())
    if value <= 0:
        return Interval(0.0, 0.0, 0.0)
    # The square of a length, whose own error is nearer to normal: of 3,000 pairs of 100 and 120
    # images with 3 features the interval held the truth for 94.8 %, without the root for 93.8 %.
    length = around(math.sqrt(value), math.sqrt(variance / value) / 2)
    return Interval(value, max(length.low, 0.0) ** 2, length.high**2)


def _side(features: Array, mean: Array, shift: Array) -> tuple[_Side, Array]:
    """A set of images and the factor of its covariance."""
    count, size = features.shape
    parts = [(each @ shift, np.einsum("nd,nd->n", each, each)) for each in _centred(features, mean)]
    along, lengths = (np.concatenate(each) for each in zip(*parts, strict=True))
    if count <= size:
        return _Side(along, lengths, _of_rows(count)), (features - mean) / np.sqrt(count - 1)
    products = np.asarray(sum(each.T @ each for each in _centred(features, mean)))
    values, vectors = np.linalg.eigh(products / (count - 1))
    kept = values > _RANK * max(values[-1], 0)
    factor = np.sqrt(values[kept])[:, None] * vectors[:, kept].T

    def quadratic(left: Array, values_of_left: Array) -> Array:
        whitened = (factor.T / values[kept]) @ (left * np.sqrt(values_of_left))
        blocks = _centred(features, mean)
        return np.concatenate([((each @ whitened) ** 2).sum(axis=1) for each in blocks])

    return _Side(along, lengths, quadratic), factor


def _of_rows(count: int) -> Callable[[Array, Array], Array]:
    """`_Side.quadratic` where the rows of A are the centred images, over the root of N - 1."""
    return lambda left, values: np.asarray((count - 1) * (left**2 @ values))


def _centred(features: Array, mean: Array) -> Iterator[Array]:
    """Rows less the mean in float64, a block at a time."""
    for first in range(0, len(features), _BLOCK):
        yield features[first : first + _BLOCK] - mean
