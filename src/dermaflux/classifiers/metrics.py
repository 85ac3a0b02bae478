"""Figures of a binary classifier, for one sample and for many bootstrap resamples at once.

Pure functions on numpy arrays. `labels` (N,) holds 0 or 1 (1 is malignant), `scores` (N,)
probabilities in [0, 1]. A resample is a row of integer weights (B, N): how often each image
occurs in it. Every figure is in [0, 1], higher is better, but for the Brier score and the
calibration error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_CALIBRATION_BINS = 15  # Guo et al. 2017, section 5
_ELEMENTS = 4_000_000  # weights handled at a time: 32 MB in float64


def auc(labels: Array, scores: Array) -> float:
    """Area under the ROC curve: P(malignant score > benign) + P(equal) / 2."""
    return float(_auc(labels, scores, np.ones((1, len(labels))))[0])


def roc_points(labels: Array, scores: Array, at_most: int = 200) -> Array:
    """(K, 2) false and true positive rates from (0, 0) to (1, 1), K <= `at_most`, thinned evenly.

    Points inside a straight run are left out first, as they carry nothing.
    """
    false, true = (side[0] for side in _rates(labels, scores, np.ones((1, len(labels)))))
    points: Array = np.column_stack([np.append(0.0, false), np.append(0.0, true)])
    steps = np.diff(points, axis=0)
    turns = np.abs(steps[:-1, 0] * steps[1:, 1] - steps[:-1, 1] * steps[1:, 0]) > 1e-12
    points = points[np.concatenate([[True], turns, [True]])]
    if len(points) > at_most:
        points = points[np.linspace(0, len(points) - 1, at_most).round().astype(int)]
    return points


def calibration_error(labels: Array, scores: Array) -> float:
    """Expected calibration error of P(malignant) in 15 equal bins (Guo et al. 2017, eq. 3)."""
    bins = np.minimum((scores * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    gap = np.bincount(bins, weights=scores - labels, minlength=_CALIBRATION_BINS)
    return float(np.abs(gap).sum() / len(labels))


def figures(
    labels: Array, scores: Array, threshold: float, specificities: Sequence[float], weights: Array
) -> dict[str, Array]:
    """Every headline figure of each resample, arrays (B,); `weights` (B, N).

    A score at the threshold counts as malignant. `sensitivity_at_90` is the highest sensitivity of
    any threshold whose specificity is at least 90 %, without interpolation.
    """
    parts: dict[str, list[Array]] = {}
    chunk = max(1, _ELEMENTS // len(labels))
    for first in range(0, len(weights), chunk):
        rows = weights[first : first + chunk].astype(np.float64)
        for name, values in _figures(labels, scores, threshold, specificities, rows).items():
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def bootstrap_auc(labels: Array, scores: Array, weights: Array) -> Array:
    """ROC-AUC of each resample, (B,)."""
    return _by_chunk(lambda rows: _auc(labels, scores, rows), weights)


def _by_chunk(figure: Callable[[Array], Array], weights: Array) -> Array:
    chunk = max(1, _ELEMENTS // weights.shape[1])
    firsts = range(0, len(weights), chunk)
    return np.concatenate(
        [figure(weights[first : first + chunk].astype(np.float64)) for first in firsts]
    )


def _figures(
    labels: Array, scores: Array, threshold: float, specificities: Sequence[float], weights: Array
) -> dict[str, Array]:
    called = scores >= threshold
    positives, negatives = weights @ (labels == 1), weights @ (labels == 0)
    hits, rejections = weights @ ((labels == 1) & called), weights @ ((labels == 0) & ~called)
    sensitivity, specificity = hits / positives, rejections / negatives
    false, true = _rates(labels, scores, weights)
    result = {
        "auc": _area(false, true),
        "accuracy": (hits + rejections) / (positives + negatives),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "f1": 2 * hits / (positives + hits + negatives - rejections),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "brier": weights @ (scores - labels) ** 2 / (positives + negatives),
    }
    for wanted in specificities:
        # The rate is a quotient of whole numbers; half a unit in the last place must not decide.
        allowed = false <= 1 - wanted + 1e-12
        result[f"sensitivity_at_{wanted * 100:g}"] = np.where(allowed, true, 0.0).max(axis=1)
    return result


def _rates(labels: Array, scores: Array, weights: Array) -> tuple[Array, Array]:
    """False and true positive rates (B, K) at the K distinct scores, highest first."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    sides = []
    for side in (0, 1):
        counted = np.cumsum(weights[:, order] * (labels[order] == side), axis=1)
        sides.append(counted[:, last] / counted[:, -1:])
    return sides[0], sides[1]


def _area(false: Array, true: Array) -> Array:
    """Trapezoids under (B, K) rates; a tie of a benign and a malignant score counts one half."""
    widths = np.diff(false, axis=1, prepend=0)
    heights = (true + np.concatenate([np.zeros((len(true), 1)), true[:, :-1]], axis=1)) / 2
    return np.asarray((widths * heights).sum(axis=1))


def _auc(labels: Array, scores: Array, weights: Array) -> Array:
    return _area(*_rates(labels, scores, weights))
