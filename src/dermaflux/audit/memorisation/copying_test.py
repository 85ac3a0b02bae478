"""The C_T test: are synthetic images nearer to the training images than held-out real ones are?

Meehan, Chaudhuri and Dasgupta 2020 (A non-parametric test to detect data-copying in generative
models, arXiv 2004.05675, section 3). Images are compared within cells of feature space, since a
generator may copy in one region and miss another. With m synthetic and n held-out images in a cell,
U of Mann and Whitney counts the pairs in which the synthetic one is farther from its nearest
training image, and

    Z = (U - m n / 2) / sqrt(m n (m + n + 1) / 12),    C_T = sum n Z / sum n over the cells.

Without copying C_T is near 0, or above it where images are of lower quality; below -3 the paper
speaks of copying. It judges a pool, while `rejection` judges images. Pure.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dermaflux.audit.area import placements
from dermaflux.audit.interval import around, missing
from dermaflux.core.arrays import Array

MINIMUM = 20
"""Images of either kind that a cell needs (the paper's tau, there of synthetic ones)."""
_PER_CELL = 50  # of the rarer kind, on average
_FITTED_TO = 5000  # training images, at random, that decide the cells


def cells_of(training: Array, synthetic: Array, held_out: Array) -> tuple[Array, Array]:
    """Cell (M,) of each synthetic and (H,) of each held-out image.

    From features (N, D), (M, D) and (H, D), by k-means on the training images; as many cells as
    give 50 images of the rarer kind to each.
    """
    count = min(min(len(synthetic), len(held_out)) // _PER_CELL, len(training))
    if count < 2:
        return np.zeros(len(synthetic), int), np.zeros(len(held_out), int)
    from sklearn.cluster import KMeans

    order = np.random.Generator(np.random.PCG64(0)).permutation(len(training))[:_FITTED_TO]
    fitted = KMeans(count, n_init=1, random_state=0).fit(training[np.sort(order)])
    return tuple(fitted.predict(np.ascontiguousarray(each)) for each in (synthetic, held_out))


def copying_test(
    synthetic: Array, held_out: Array, cells: tuple[Array, Array] | None = None
) -> dict[str, Any]:
    """C_T with its 95 % interval, and the probability of so low a value without copying.

    `synthetic` (M,) and `held_out` (H,) are distances to the nearest training image, `cells` what
    `cells_of` returns; one cell where None. `value` is None, with the reason, where no cell has
    `MINIMUM` images of either kind.
    """
    if cells is None:
        cells = np.zeros(len(synthetic), int), np.zeros(len(held_out), int)
    found = []
    for cell in np.unique(cells[1]):
        ours, theirs = synthetic[cells[0] == cell], held_out[cells[1] == cell]
        if min(len(ours), len(theirs)) >= MINIMUM:
            found.append((len(theirs), *_standardised(ours, theirs)))
    counts = {"images": len(synthetic), "held_out_images": len(held_out), "cells": len(found)}
    if not found:
        reason = (
            f"needs {MINIMUM} synthetic and held-out images in one cell, and there are "
            f"{len(synthetic):,} and {len(held_out):,} in all"
        )
        return {**missing(reason), "p": None, **counts}
    from scipy.stats import norm

    weights, values, errors = np.array(found).T
    weights = weights / weights.sum()
    value = float(weights @ values)
    spread = float(np.sqrt(weights**2 @ errors**2))
    by_chance = float(np.sqrt(weights @ weights))  # a cell's Z has a deviation of 1
    p = float(norm.cdf(value / by_chance))
    return {**around(value, spread)._asdict(), "p": p, **counts}


def _standardised(ours: Array, theirs: Array) -> tuple[float, float]:
    """Z of one cell and its standard error over other images of both kinds (DeLong et al. 1988)."""
    m, n = len(ours), len(theirs)
    farther, nearer = placements(ours, theirs)
    by_chance = np.sqrt((m + n + 1) / (12 * m * n))
    error = np.sqrt(np.var(farther, ddof=1) / m + np.var(nearer, ddof=1) / n)
    # Where all pairs agree the variance is 0, as if other images could not differ.
    error = max(error, 0.5 / min(m, n))
    return float((farther.mean() - 0.5) / by_chance), float(error / by_chance)
