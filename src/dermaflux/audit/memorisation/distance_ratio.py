"""Memorisation: is a synthetic image a copy of a training image?

Pure functions on feature matrices. The distance of two images is the Euclidean distance of their
features, minimised over the eight symmetries of the square, since a mirrored copy is a copy. For a
synthetic image s with nearest training image t,

    ratio(s) = distance(s, t) / mean distance from t to its 5 nearest other training photographs.

An ordinary new image is about as far from t as t's neighbours are (ratio near 1); a copy is much
closer. This is the adaptive threshold of Carlini et al. 2023 (Extracting training data from
diffusion models, section 4.2), with the local scale taken around t, and the same limit 1/2. Copies
of t among the training images are no neighbours of it: an image that training holds several times
is the likeliest to be memorised (their section 4), and its copies would make the scale so small
that no image was ever too near. The mean over several neighbours prevents a second photograph of
the same lesion from hiding a copy. The fraction of held-out real images that the rule would flag is
its false positive rate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dermaflux.audit.memorisation.neighbours import neighbours, orientations
from dermaflux.core.arrays import Array

if TYPE_CHECKING:
    from dermaflux.audit.features import Turned

NEIGHBOURS = 5
_COPIES = 3  # of an image that its group lacks: as many are passed over before looking further

Same = Callable[[Array, Array, Array], Array]
"""Rows (R,) of training images, rows (R, k) of others and the orientations (R, k) that bring the
first nearest to them -> bool (R, k): whether both show one photograph."""


class Nearest(NamedTuple):
    """What is nearest to each of M queries."""

    rows: Array
    """(M, k) of the training images, ascending by distance; k is `NEIGHBOURS` or fewer."""
    distance: Array
    """(M,) to the first."""
    ratio: Array
    """(M,), as above."""
    authentic: Array
    """bool (M,): farther from the first than that is from its nearest other photograph, as in Alaa
    et al. 2022 (How faithful is your synthetic data, section 4.3), but over the symmetries."""


def nearest(
    queries: Array | Turned,
    points: Array,
    symmetric: Callable[[Array], Array | Turned],
    groups: Array | None = None,
    same: Same | None = None,
) -> Nearest:
    """The training images nearest to each query.

    `queries` (M, 8, D), `points` (N, D) training features; `symmetric(rows)` returns the features
    (K, 8, D) of training images, needed only for those nearest to a query. `groups` (N,) numbers
    the training photographs: images with the same number are known to be copies of each other;
    `same` finds other copies among the neighbours of an image.
    """
    index, distances = neighbours(queries, points, NEIGHBOURS)
    rows, inverse = np.unique(index[:, 0], return_inverse=True)
    groups = np.arange(len(points)) if groups is None else groups
    local = local_distances(rows, symmetric(rows), points, groups, same)
    distance = distances[:, 0]
    of_query = local[inverse]
    return Nearest(index, distance, ratios(distance, of_query), distance > of_query[:, 0])


def local_distances(
    rows: Array, features: Array | Turned, points: Array, groups: Array, same: Same | None
) -> Array:
    """Distances (R, 5) of training images `rows` (R,) to their nearest other photographs.

    `features` (R, 8, D) are theirs; infinite where there are fewer others.
    """
    local = np.full((len(rows), NEIGHBOURS), np.inf)
    left, count = np.arange(len(rows)), NEIGHBOURS + _COPIES
    while len(left):
        own = (groups[rows[left]], groups)
        of_left = features if len(left) == len(rows) else features[left]
        index, distances = neighbours(of_left, points, count, own)
        if same is not None:
            turns = orientations(of_left, points, index)
            distances[same(rows[left], index, turns)] = np.inf
        nearest_others = np.sort(distances, axis=1)[:, :NEIGHBOURS]
        local[left, : nearest_others.shape[1]] = nearest_others
        if count >= len(points):
            break
        left, count = left[np.isinf(nearest_others[:, -1])], 4 * count
    return local


def ratios(distance: Array, local: Array) -> Array:
    """`distance` (M,) over the mean of the finite `local` (M, k); below 1 is closer than those.

    Where all of `local` is 0, or none is finite, 0 for an equal query, otherwise infinite.
    """
    finite = np.isfinite(local)
    total = np.where(finite, local, 0).sum(axis=1)
    scale = total / np.maximum(finite.sum(axis=1), 1)
    result = np.where(distance > 0, np.inf, 0.0)
    np.divide(distance, scale, out=result, where=scale > 0)
    return result
