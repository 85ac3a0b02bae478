"""Cluster bootstrap: resamples of a test set that respect class and lesion.

Images of one lesion or one duplicate group are not independent, so whole groups are drawn; classes
are drawn apart, so each resample holds both (Field and Welsh 2007; Efron and Tibshirani 1993,
chapter 13 for the percentile interval). Pure functions on arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dermaflux.core.arrays import Array

if TYPE_CHECKING:
    import pandas as pd


def groups(rows: pd.DataFrame) -> Array:
    """(N,) group numbers: images that share a lesion_id of one source or a duplicate_group.

    Sharing is transitive. Absent ids bind nothing.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = len(rows)
    lesions = rows["source"].astype(str) + "/" + rows["lesion_id"].astype(str)
    keys = (
        lesions.where(rows["lesion_id"].notna()),
        rows["duplicate_group"].where(rows["duplicate_group"].notna()),
    )
    links = np.zeros((2, 0), int)
    offset = count
    for key in keys:
        codes = key.factorize()[0]
        linked = np.flatnonzero(codes >= 0)
        links = np.hstack([links, [linked, offset + codes[linked]]])
        offset += int(codes.max(initial=-1)) + 1
    graph = coo_matrix((np.ones(links.shape[1]), (links[0], links[1])), (offset, offset))
    return np.asarray(connected_components(graph, directed=False)[1][:count])


def resamples(labels: Array, members: Array, count: int, seed: int) -> Array:
    """Weights (count, N) int32 of `count` resamples; `members` are the group numbers (N,).

    `labels` (N,) are class numbers. Each class keeps its number of groups. A group that holds
    several classes is drawn in each of them.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    weights = np.zeros((count, len(labels)), np.int32)
    for side in np.unique(labels):
        inside = np.flatnonzero(labels == side)
        number = np.unique(members[inside], return_inverse=True)[1]
        size = int(number.max()) + 1
        drawn = generator.integers(0, size, (count, size))
        for row, picks in zip(weights, drawn, strict=True):  # a row at a time stays in the cache
            row[inside] = np.bincount(picks, minlength=size)[number]
    return weights


def interval(values: Array, confidence: float) -> tuple[float, float]:
    """Percentile interval of bootstrap values (B,)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def unanimous_interval(value: float, lesions: int, confidence: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a rate of 0 or 1 over independent `lesions`.

    No resample of lesions that all went one way differs from them, so the percentile interval would
    have no width and 10 of 10 would pass for certainty.
    """
    bound = ((1 - confidence) / 2) ** (1 / lesions)
    return (bound, 1.0) if value == 1 else (0.0, 1 - bound)


def centred_interval(value: float, values: Array, confidence: float) -> tuple[float, float]:
    """The percentile interval moved so that its resamples have the mean `value`, held above 0.

    For a calibration error: each resample adds noise to every bin and so raises the error, by
    which the plain interval would lie above the figure itself.
    """
    low, high = interval(values - values.mean() + value, confidence)
    return max(low, 0.0), max(high, 0.0)
