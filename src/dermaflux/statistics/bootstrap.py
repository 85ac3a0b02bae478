"""Cluster bootstrap: resamples of a test set that respect class and lesion.

Images of one lesion or one duplicate group are not independent, so whole groups are resampled;
each class is resampled separately, so every resample contains both (Field and Welsh 2007; Efron and
Tibshirani 1993, chapter 13 for the percentile interval). Pure functions on arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dermaflux.core.arrays import Array

if TYPE_CHECKING:
    import pandas as pd


def groups(rows: pd.DataFrame) -> Array:
    """(N,) group numbers: images that share a lesion_id of one source or a duplicate_group.

    Sharing is transitive. A missing id links no images.
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

    `labels` (N,) are class numbers. Each class keeps its number of groups. A group that contains
    several classes is resampled in each of them.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    weights = np.zeros((count, len(labels)), np.int32)
    for label in np.unique(labels):
        images = np.flatnonzero(labels == label)
        group = np.unique(members[images], return_inverse=True)[1]
        size = int(group.max()) + 1
        samples = generator.integers(0, size, (count, size))
        for row, sample in zip(weights, samples, strict=True):  # one row at a time stays in cache
            row[images] = np.bincount(sample, minlength=size)[group]
    return weights


def interval(values: Array, confidence: float) -> tuple[float, float]:
    """Percentile interval of bootstrap values (B,)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def simultaneous_intervals(
    estimates: Array, values: Array, confidence: float
) -> tuple[Array, Array]:
    """Lower and upper limits (K,) of K estimates, all of which hold at once at `confidence`.

    `values` (K, B) are those of the same B resamples, so that what the estimates share is not
    paid for K times, as Bonferroni's correction would. Each interval is a multiple of its own
    standard error: of the largest studentized deviation of the K in a resample, the quantile
    (Romano and Wolf 2005, Econometrica 73:1237; White's reality check 2000, ibid. 68:1097, is the
    same without standard errors). One estimate gets its percentile interval. An estimate that is
    the same in every resample has an interval of no width, and widens no other.
    """
    deviations = values - estimates[:, None]
    errors = deviations.std(axis=1)
    varies = errors > 1e-12  # below it lies the rounding of equal values
    low, high = estimates.astype(float).copy(), estimates.astype(float).copy()
    if varies.any():
        studentized = deviations[varies] / errors[varies, None]
        tail = (1 - confidence) / 2
        low[varies] += errors[varies] * np.quantile(studentized.min(axis=0), tail)
        high[varies] += errors[varies] * np.quantile(studentized.max(axis=0), 1 - tail)
    return low, high


def unanimous_interval(value: float, lesions: int, confidence: float) -> tuple[float, float]:
    """Clopper-Pearson interval of a rate of exactly 0 or 1 over independent `lesions`.

    Every resample of unanimous lesions equals the sample, so the percentile interval would have
    zero width and 10 of 10 would look like certainty.
    """
    from scipy.stats import binomtest

    successes = lesions if value == 1 else 0
    exact = binomtest(successes, lesions).proportion_ci(confidence, method="exact")
    return float(exact.low), float(exact.high)


def centred_interval(value: float, values: Array, confidence: float) -> tuple[float, float]:
    """The percentile interval shifted so that its resamples have the mean `value`, clipped at 0.

    For a calibration error: resampling adds noise to every bin and so raises the error, and the
    plain interval would lie above the estimate itself.
    """
    low, high = interval(values - values.mean() + value, confidence)
    return max(low, 0.0), max(high, 0.0)
