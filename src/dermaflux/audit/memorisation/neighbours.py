"""Nearest training images by Euclidean distance, block by block, on a GPU where there is one.

Pure functions on feature matrices, but for the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dermaflux.core.arrays import Array

if TYPE_CHECKING:
    import torch

    from dermaflux.audit.features import Turned

_QUERIES, _POINTS = 128, 8192  # a block of distances: 34 MB over the eight symmetries
_GPU_QUERIES = 2048  # a block of 537 MB; the points go to the GPU once for each such block
_SPARE = 3  # candidates beyond `count`, since blocks are computed in float32
_WORTH_A_GPU = (
    1e12  # multiplications, 20 s of a core: below, loading torch costs more than it saves
)


def neighbours(
    queries: Array | Turned, points: Array, count: int, groups: tuple[Array, Array] | None = None
) -> tuple[Array, Array]:
    """Rows and distances (M, k) of the k nearest `points` (N, D) of each query, ascending.

    `queries` (M, 8, D): an image's features under the eight symmetries. `groups`: numbers (M,) of
    the queries and (N,) of the points; a point of a query's own group is not its neighbour, and
    where fewer than k others are left, the last distances are infinite and their rows mean nothing.
    k is `count`, or N if smaller. Memory does not grow with M x N.
    """
    # Not `sklearn.neighbors`: in one run each of 5,000 queries x 20,000 points (D = 512, two cores)
    # it took 74 s against 52 s here, and 3.6 s against 2.7 s at 420 x 2,000 (D = 3072). It gave an
    # exact copy the distance 1e-6 instead of 0, and the lowest rows of three equal points to 1 % of
    # the queries (here all), which decides the `nearest_id` of duplicates.
    count = min(count, len(points))
    device = _gpu(queries.size * len(points))
    size = _QUERIES if device is None else _GPU_QUERIES
    squared = np.einsum("nd,nd->n", points, points)
    rows, distances = [np.empty((0, count), int)], [np.empty((0, count))]
    for first in range(0, len(queries), size):
        block = queries[first : first + size]
        own = None if groups is None else (groups[0][first : first + size], groups[1])
        if device is None:
            candidates = _candidates(block, points, squared, count + _SPARE, own)
        else:
            candidates = _candidates_on(device, block, points, squared, count + _SPARE, own)
        exact = _exact(block, points, candidates)
        if own is not None:
            exact[own[0][:, None] == own[1][candidates]] = np.inf
        order = np.argsort(exact, axis=1, kind="stable")[:, :count]
        rows.append(np.take_along_axis(candidates, order, axis=1))
        distances.append(np.take_along_axis(exact, order, axis=1))
    return np.concatenate(rows), np.concatenate(distances)


def _gpu(multiplications: int) -> torch.device | None:
    """The GPU where there is one and the work is worth it."""
    if multiplications < _WORTH_A_GPU:
        return None
    from dermaflux.core.devices import automatic_device

    device = automatic_device()
    return None if device.type == "cpu" else device


def _candidates(
    queries: Array, points: Array, squared: Array, count: int, own: tuple[Array, Array] | None
) -> Array:
    """Rows (M, <= count) of the nearest points by |q|^2 - 2 q.p + |p|^2, block by block, sorted."""
    total, symmetries, size = queries.shape
    norms = np.einsum("msd,msd->ms", queries, queries)[:, :, None]
    best, rows = np.empty((total, 0), np.float32), np.empty((total, 0), int)
    for first in range(0, len(points), _POINTS):
        part = slice(first, first + _POINTS)
        products = (queries.reshape(-1, size) @ points[part].T).reshape(total, symmetries, -1)
        near = (norms - 2 * products + squared[part]).min(axis=1)
        if own is not None:
            near[own[0][:, None] == own[1][part]] = np.inf
        best = np.concatenate([best, near], axis=1)
        numbers = np.arange(first, first + near.shape[1])
        rows = np.concatenate([rows, np.broadcast_to(numbers, near.shape)], axis=1)
        if best.shape[1] > count:
            nearest_rows = np.argpartition(best, count - 1, axis=1)[:, :count]
            best = np.take_along_axis(best, nearest_rows, axis=1)
            rows = np.take_along_axis(rows, nearest_rows, axis=1)
    return np.sort(rows, axis=1)


def _candidates_on(
    device: torch.device,
    queries: Array,
    points: Array,
    squared: Array,
    count: int,
    own: tuple[Array, Array] | None,
) -> Array:
    """`_candidates` with torch on a device: `_exact` measures the spare ones, so both agree."""
    import torch

    total, symmetries, size = queries.shape
    with torch.inference_mode():
        flat = torch.from_numpy(np.ascontiguousarray(queries)).to(device).reshape(-1, size)
        norms = flat.square().sum(1).reshape(total, symmetries, 1)
        best = torch.empty((total, 0), device=device)
        rows = torch.empty((total, 0), dtype=torch.int64, device=device)
        for first in range(0, len(points), _POINTS):
            part = slice(first, first + _POINTS)
            block = torch.from_numpy(points[part]).to(device)
            products = (flat @ block.T).reshape(total, symmetries, -1)
            lengths = torch.from_numpy(squared[part]).to(device)
            near = (norms - 2 * products + lengths).amin(1)
            if own is not None:
                same = torch.from_numpy(own[0][:, None] == own[1][part])
                near[same.to(device)] = torch.inf
            numbers = torch.arange(first, first + near.shape[1], device=device)
            best = torch.cat([best, near], 1)
            rows = torch.cat([rows, numbers.expand(near.shape)], 1)
            best, place = best.topk(min(count, best.shape[1]), dim=1, largest=False)
            rows = rows.gather(1, place)
        return np.sort(rows.cpu().numpy(), axis=1)


def _exact(queries: Array, points: Array, candidates: Array) -> Array:
    """Distances (M, k) from differences: the expanded square loses small ones to cancellation."""
    distances = np.empty(candidates.shape)
    for row, query in enumerate(queries):
        differences = query[None].astype(np.float64) - points[candidates[row]][:, None]
        distances[row] = np.sqrt((differences**2).sum(axis=2)).min(axis=1)
    return distances


def orientations(queries: Array | Turned, points: Array, index: Array) -> Array:
    """Which of its eight symmetries (M, k) brings a query nearest to each of the points `index`.

    `queries` (M, 8, D), `points` (N, D), `index` (M, k) as `neighbours` returns it.
    """
    turns = np.empty(index.shape, int)
    for first in range(0, len(queries), _QUERIES):
        part = slice(first, first + _QUERIES)
        for row, query in enumerate(queries[part], first):
            differences = query[None] - points[index[row]][:, None]
            turns[row] = np.square(differences).sum(axis=2).argmin(axis=1)
    return turns
