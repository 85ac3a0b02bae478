"""Frechet distance of two sets of features: FID where a trunk is Inception, FD for any other.

Of normal distributions with the means and covariances of the sets (Heusel et al. 2017, GANs Trained
by a Two Time-Scale Update Rule, equation 6):

    |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2).

No unit; lower is closer. Few images make it too large: two halves of one data set have a positive
distance, so a figure means something beside that of as many real images. Pure functions on feature
matrices (N, D).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dermaflux.audit.interval import Interval, around
from dermaflux.core.arrays import Array

_BLOCK = 4096  # rows in float64 at a time
_RANK = 1e-10  # eigenvalues below this share of the largest are rounding errors


@dataclass(frozen=True)
class _Sample:
    """Mean (D,), and a factor A (r, D) of the covariance A'A."""

    features: Array
    mean: Array
    factor: Array
    scales: Array | None
    """Deviations (r,) along the rows of A, which are then orthogonal; None where the rows of A are
    the centred images themselves, as there are no more of those than features."""

    def quadratic(self, left: Array, values: Array) -> Array:
        """(N,) c' L diag(values) L' c of each image, x - mean = A'c; `left` is L (r, k)."""
        if self.scales is None:
            return np.asarray((len(self.features) - 1) * (left**2 @ values))
        whitened = (self.factor.T / self.scales**2) @ (left * np.sqrt(values))
        return np.concatenate(
            [((block @ whitened) ** 2).sum(axis=1) for block in _centred(self.features, self.mean)]
        )

    def influence(self, left: Array, values: Array, shift: Array) -> Array:
        """(N,) slope of the distance in the weight of each image."""
        blocks = [
            (block @ shift, np.einsum("nd,nd->n", block, block))
            for block in _centred(self.features, self.mean)
        ]
        along, length = (np.concatenate(each) for each in zip(*blocks, strict=True))
        count = len(length)
        spread = length - self.quadratic(left, values)
        return np.asarray(2 * along + count / (count - 1) * spread)


def frechet_distance(synthetic: Array, real: Array) -> Interval:
    """The distance of (N, D) and (M, D), N and M at least 2, over other images of both kinds.

    The interval holds the mean of the distances of as many images, which is larger than that of
    very many, with 95 %: the infinitesimal jackknife (Jaeckel 1972; Efron 1982, The Jackknife, the
    Bootstrap and Other Resampling Plans, chapter 6). A bootstrap would draw images twice, which
    lowers the rank of a covariance and so shifts the distance itself.
    """
    # Not torch-fidelity's: it takes the eigenvalues of the D x D product S1 S2, minutes for D =
    # 3072, and gives no error. Its value differs from ours by less than 1e-6 (test_frechet).
    left, right = _sample(synthetic), _sample(real)
    # (S1 S2)^(1/2) has the trace of the singular values of A B'.
    first, values, second = np.linalg.svd(left.factor @ right.factor.T, full_matrices=False)
    shift = left.mean - right.mean
    variance = 0.0
    for sample, vectors, direction in ((left, first, shift), (right, second.T, -shift)):
        influence = sample.influence(vectors, values, direction)
        variance += float(np.var(influence, ddof=1)) / len(influence)
    traces = float(np.sum(left.factor**2) + np.sum(right.factor**2))
    value = max(float(shift @ shift) + traces - 2 * float(values.sum()), 0.0)
    if not value:
        return Interval(0.0, 0.0, 0.0)
    # The square of a length, whose own error is nearer to normal: of 3,000 pairs of 100 and 120
    # images with 3 features the interval held the truth for 94.8 %, without the root for 93.8 %.
    length = around(np.sqrt(value), np.sqrt(variance / value) / 2)
    return Interval(value, max(length.low, 0.0) ** 2, length.high**2)


def _sample(features: Array) -> _Sample:
    count, size = features.shape
    mean = features.mean(axis=0, dtype=np.float64)
    if count <= size:
        rows = (features - mean) / np.sqrt(count - 1)
        return _Sample(features, mean, rows, None)
    products = sum(block.T @ block for block in _centred(features, mean))
    values, vectors = np.linalg.eigh(np.asarray(products) / (count - 1))
    kept = values > _RANK * max(values[-1], 0)
    scales = np.sqrt(values[kept])
    return _Sample(features, mean, scales[:, None] * vectors[:, kept].T, scales)


def _centred(features: Array, mean: Array) -> Iterator[Array]:
    """Rows less the mean in float64, a block at a time."""
    for first in range(0, len(features), _BLOCK):
        yield features[first : first + _BLOCK] - mean
