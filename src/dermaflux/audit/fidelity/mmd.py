"""Fidelity: the kernel inception distance, which is unbiased even for few images; inception score.

KID is the squared maximum mean discrepancy between two sets of features under the kernel
k(x, y) = (x.y / D + 1)^3 (Binkowski et al. 2018, Demystifying MMD GANs, section 4). The estimator
is unbiased, so it may be negative for equal distributions. It has no unit; lower is closer.
Pure functions on feature matrices (N, D).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dermaflux.audit.fidelity.products import Products, products_of
from dermaflux.audit.interval import Interval
from dermaflux.core.arrays import Array

SUBSETS = 100
_SPLITS = 10  # Salimans et al. 2016
_SUBSET_SIZE = 1000  # Binkowski et al. 2018
_MAXIMUM = 2000  # images used of each set; limits a kernel matrix to 32 MB


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
    error: float | None = None
    """Standard error over other images of both kinds; None for the floor."""


def standard_error(within_x: Array, within_y: Array, between: Array) -> float:
    """Of `unbiased_mmd2`, over other samples x and y: the jackknife of a two-sample U-statistic.

    Each image is left out once (Arvesen 1969, Annals of Mathematical Statistics 40:2076). Needs 3
    of each.
    """
    variance = 0.0
    for within, across in ((within_x, between), (within_y, between.T)):
        size, others = across.shape
        rows = within.sum(axis=1) - np.diag(within)
        own = (rows.sum() - 2 * rows) / ((size - 1) * (size - 2))
        crossed = (across.sum() - across.sum(axis=1)) / ((size - 1) * others)
        variance += (size - 1) ** 2 / size * float(np.var(own - 2 * crossed, ddof=1))
    return float(np.sqrt(variance))


def kid(synthetic: Array, real: Array, seed: int) -> tuple[Estimate, Estimate]:
    """KID of synthetic against real features, and of real against real from disjoint halves.

    The second is the floor that a perfect generator would reach. Both use subsets of the same size
    m = min(1000, synthetic, real / 2), sampled without replacement. Needs 4 real and 3 synthetic
    rows.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    chosen = (each[_sample(len(each), generator)] for each in (synthetic, real))
    return _over_subsets(products_of(*chosen), synthetic.shape[1], generator)


def kid_of_products(products: Products, size: int, seed: int) -> tuple[Estimate, Estimate]:
    """`kid` of features of that size (D) whose products are known."""
    generator = np.random.Generator(np.random.PCG64(seed))
    counts = products.between.shape
    ours, theirs = (_sample(count, generator) for count in counts)
    if max(counts) > _MAXIMUM:
        products = products.where(ours, theirs)
    return _over_subsets(products, size, generator)


def _over_subsets(
    products: Products, size: int, generator: np.random.Generator
) -> tuple[Estimate, Estimate]:
    # Not `torch_fidelity.calculate_metrics`: it has no floor from disjoint halves, and another
    # sequence of subsets would change every published figure. Its estimate from whole sets differs
    # from ours by less than 1e-6 of the value (test_fidelity).
    of_synthetic, between, of_real = ((each / size + 1) ** 3 for each in products)
    count, others = between.shape
    many = min(_SUBSET_SIZE, count, others // 2)
    subsets = np.zeros((SUBSETS, count))
    first, second = np.zeros((2, SUBSETS, others))
    for row in range(SUBSETS):
        subsets[row, generator.permutation(count)[:many]] = 1
        halves = generator.permutation(others)
        first[row, halves[:many]] = 1
        second[row, halves[many : 2 * many]] = 1
    inside = _within(of_real, first)
    distances = _within(of_synthetic, subsets) + inside - 2 * _between(between, subsets, first)
    floor = inside + _within(of_real, second) - 2 * _between(of_real, first, second)
    error = standard_error(of_synthetic, of_real, between)
    return replace(_estimate(distances, many), error=error), _estimate(floor, many)


def _within(kernels: Array, subsets: Array) -> Array:
    """Mean kernel (S,) of two different images of each subset, whose rows are 0 or 1, (S, N)."""
    size = subsets[0].sum()
    own = subsets @ np.diag(kernels)
    return np.asarray((((subsets @ kernels) * subsets).sum(axis=1) - own) / (size * (size - 1)))


def _between(kernels: Array, left: Array, right: Array) -> Array:
    """Mean kernel (S,) of an image of each left subset (S, M) and one of the right (S, N)."""
    pairs = left[0].sum() * right[0].sum()
    return np.asarray(((left @ kernels) * right).sum(axis=1) / pairs)


def inception_score(logits: Array) -> Interval:
    """exp of the mean divergence of an image's class probabilities from those of all images.

    `logits` (N, C), N at least 20. Salimans et al. 2016 (Improved Techniques for Training GANs,
    section 4) as everybody computes it, mean over ten splits of the images; the 95 % interval is
    that of such a mean (Student's t). From 1, all images alike, to C; higher is better. Few images
    make it too small: a split of ten cannot exceed 10.
    """
    import torch
    from scipy.stats import t
    from torch_fidelity.metric_isc import (
        KEY_METRIC_ISC_MEAN,
        KEY_METRIC_ISC_STD,
        isc_features_to_metric,
    )

    scores = isc_features_to_metric(torch.from_numpy(logits), splits=_SPLITS)
    value = scores[KEY_METRIC_ISC_MEAN]
    # torch-fidelity divides by the number of splits, not by one less.
    half = float(t.ppf(0.975, _SPLITS - 1)) * scores[KEY_METRIC_ISC_STD] / np.sqrt(_SPLITS - 1)
    return Interval(value, max(value - half, 1.0), value + half)


def _sample(count: int, generator: np.random.Generator) -> Array:
    """At most `_MAXIMUM` of so many row numbers, ascending."""
    if count <= _MAXIMUM:
        return np.arange(count)
    return np.sort(generator.permutation(count)[:_MAXIMUM])


def _estimate(values: Array, size: int) -> Estimate:
    return Estimate(float(np.mean(values)), float(np.std(values)), size)
