"""Fidelity: the kernel inception distance, unbiased also for few images.

KID is the squared maximum mean discrepancy of two sets of features under the kernel
k(x, y) = (x.y / D + 1)^3 (Binkowski et al. 2018, Demystifying MMD GANs, section 4), estimated
without bias, so it may fall below zero for equal distributions. It has no unit; lower is closer.
Pure functions on feature matrices (N, D).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dermaflux.core.arrays import Array

SUBSETS = 100
_SUBSET_SIZE = 1000  # Binkowski et al. 2018
_MOST = 2000  # images of a set that take part; bounds the kernel matrices to 32 MB each


def kernel(left: Array, right: Array) -> Array:
    """(x.y / D + 1)^3 for each pair of rows of (M, D) and (N, D), float64 (M, N)."""
    products: Array = (left @ right.T).astype(np.float64)
    return np.asarray((products / left.shape[1] + 1) ** 3)


def unbiased_mmd2(within_x: Array, within_y: Array, between: Array) -> float:
    """Unbiased squared discrepancy from kernel matrices (M, M), (N, N), (M, N); M, N >= 2."""
    total = between.mean() * -2
    for within in (within_x, within_y):
        size = len(within)
        total += (within.sum() - np.trace(within)) / (size * (size - 1))
    return float(total)


@dataclass(frozen=True)
class Estimate:
    """KID over random subsets."""

    mean: float
    std: float
    """Standard deviation over subsets: the spread at that subset size."""
    subset_size: int


def kid(synthetic: Array, real: Array, seed: int) -> tuple[Estimate, Estimate]:
    """KID of synthetic against real features, and of real against real from disjoint halves.

    The second is the floor that a perfect generator would reach. Both use subsets of one size m =
    min(1000, synthetic, real / 2), drawn without replacement. Needs 4 real and 2 synthetic rows.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    synthetic, real = _sample(synthetic, generator), _sample(real, generator)
    size = min(_SUBSET_SIZE, len(synthetic), len(real) // 2)
    of_synthetic, of_real = kernel(synthetic, synthetic), kernel(real, real)
    between = kernel(synthetic, real)
    found, floor = [], []
    for _ in range(SUBSETS):
        ours = generator.permutation(len(synthetic))[:size]
        halves = generator.permutation(len(real))
        one, other = halves[:size], halves[size : 2 * size]
        found.append(
            unbiased_mmd2(
                of_synthetic[np.ix_(ours, ours)],
                of_real[np.ix_(one, one)],
                between[np.ix_(ours, one)],
            )
        )
        floor.append(
            unbiased_mmd2(
                of_real[np.ix_(one, one)],
                of_real[np.ix_(other, other)],
                of_real[np.ix_(one, other)],
            )
        )
    return _estimate(found, size), _estimate(floor, size)


def _sample(features: Array, generator: np.random.Generator) -> Array:
    if len(features) <= _MOST:
        return features
    return features[np.sort(generator.permutation(len(features))[:_MOST])]


def _estimate(values: list[float], size: int) -> Estimate:
    return Estimate(float(np.mean(values)), float(np.std(values)), size)
