"""Memorisation: is a synthetic image a copy of a training image?

Pure functions on feature matrices. The distance of two images is the Euclidean distance of their
features, least over the eight symmetries of the square, since a mirrored copy is a copy. For a
synthetic image s with nearest training image t,

    ratio(s) = distance(s, t) / mean distance from t to its 5 nearest other training images.

An ordinary new image lies about as far from t as t's neighbours do (ratio near 1); a copy lies at a
fraction of that. The idea is the adaptive threshold of Carlini et al. 2023 (Extracting training
data from diffusion models, section 4.2), with the local scale taken around t, and limit 1/2 as
there; taking a mean of several neighbours keeps a second picture of the same lesion in the training
set from hiding a copy. The share of held-out real images that the rule would flag is its false
alarm rate.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dermaflux.core.arrays import Array

NEIGHBOURS = 5
_QUERIES, _POINTS = 128, 8192  # a block of distances: 34 MB over the eight symmetries
_SPARE = 3  # candidates beyond those asked for, since blocks are computed in float32


def nearest(
    queries: Array, points: Array, turned: Callable[[Array], Array]
) -> tuple[Array, Array, Array]:
    """Row (M,) of the training image nearest to each query, its distance and the ratio above.

    `queries` (M, 8, D), `points` (N, D) training features; `turned(rows)` gives the features
    (K, 8, D) of training images, which only those near a query need.
    """
    index, distance = (found[:, 0] for found in neighbours(queries, points, 1))
    rows, place = np.unique(index, return_inverse=True)
    local = neighbours(turned(rows), points, NEIGHBOURS, without=rows)[1]
    return index, distance, ratios(distance, local[place])


def ratios(distance: Array, local: Array) -> Array:
    """`distance` (M,) over the mean of `local` (M, k); below 1 means closer than neighbours are.

    Where all of `local` is 0 (k equal training images), 0 for an equal query, else infinite.
    """
    scale = local.mean(axis=1)
    result = np.where(distance > 0, np.inf, 0.0)
    np.divide(distance, scale, out=result, where=scale > 0)
    return result


def neighbours(
    queries: Array, points: Array, count: int, without: Array | None = None
) -> tuple[Array, Array]:
    """Rows and distances (M, k) of the k nearest `points` (N, D) of each query, ascending.

    `queries` (M, 8, D): an image's features under the eight symmetries. `without` (M,) names a row
    to leave out for each query. k is `count`, or the rows there are if fewer. Memory does not grow
    with M x N.
    """
    count = min(count, len(points) - (without is not None))
    squared = np.einsum("nd,nd->n", points, points)
    rows, distances = [np.empty((0, count), int)], [np.empty((0, count))]
    for first in range(0, len(queries), _QUERIES):
        part = queries[first : first + _QUERIES]
        barred = None if without is None else without[first : first + _QUERIES]
        found = _candidates(part, points, squared, count + _SPARE, barred)
        exact = _exact(part, points, found)
        if barred is not None:
            exact[found == barred[:, None]] = np.inf
        order = np.argsort(exact, axis=1, kind="stable")[:, :count]
        rows.append(np.take_along_axis(found, order, axis=1))
        distances.append(np.take_along_axis(exact, order, axis=1))
    return np.concatenate(rows), np.concatenate(distances)


def _candidates(
    queries: Array, points: Array, squared: Array, count: int, without: Array | None
) -> Array:
    """Rows (M, <= count + 1) of the nearest points by |q|^2 - 2 q.p + |p|^2, block by block."""
    total, symmetries, size = queries.shape
    keep = count + (without is not None)
    own = np.einsum("msd,msd->ms", queries, queries)[:, :, None]
    best, rows = np.empty((total, 0), np.float32), np.empty((total, 0), int)
    for first in range(0, len(points), _POINTS):
        block = points[first : first + _POINTS]
        products = (queries.reshape(-1, size) @ block.T).reshape(total, symmetries, -1)
        near = (own - 2 * products + squared[first : first + _POINTS]).min(axis=1)
        best = np.concatenate([best, near], axis=1)
        numbers = np.arange(first, first + len(block))
        rows = np.concatenate([rows, np.broadcast_to(numbers, near.shape)], axis=1)
        if best.shape[1] > keep:
            kept = np.argpartition(best, keep - 1, axis=1)[:, :keep]
            best = np.take_along_axis(best, kept, axis=1)
            rows = np.take_along_axis(rows, kept, axis=1)
    return np.sort(rows, axis=1)


def _exact(queries: Array, points: Array, found: Array) -> Array:
    """Distances (M, k) from differences: the expanded square loses small ones to cancellation."""
    result = np.empty(found.shape)
    for row, query in enumerate(queries):
        apart = query[None].astype(np.float64) - points[found[row]][:, None]
        result[row] = np.sqrt((apart**2).sum(axis=2)).min(axis=1)
    return result
