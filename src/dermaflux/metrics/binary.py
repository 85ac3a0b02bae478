"""Metrics of a binary classifier, for one sample and for many bootstrap resamples at once.

Pure functions on numpy arrays. `labels` (N,) holds 0 or 1 (1 is malignant), `scores` (N,)
probabilities in [0, 1]. A resample is a row of integer weights (B, N): how often each image
occurs in it. Every metric lies in [0, 1] and higher is better, except for the Brier score, the
calibration error and the log loss (in nats, unbounded above), where lower is better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dermaflux.core.arrays import Array
from dermaflux.metrics import calibration

_ELEMENTS = 125_000  # weights processed at a time: 1 MB in float64 stays in the cache
_SMALLEST = 1e-15


def auc(labels: Array, scores: Array) -> float:
    """Area under the ROC curve: P(malignant score > benign) + P(equal) / 2."""
    return float(bootstrap_auc(labels, scores, np.ones((1, len(labels))))[0])


def roc_points(labels: Array, scores: Array, at_most: int = 200) -> Array:
    """(K, 2) false and true positive rates from (0, 0) to (1, 1), K <= `at_most`.

    Points on a straight segment are dropped first, since they carry no information; what remains
    is thinned evenly. Both classes must occur.
    """
    from sklearn.metrics import roc_curve

    points: Array = np.column_stack(roc_curve(labels, scores, drop_intermediate=False)[:2])
    # `drop_intermediate` keeps a point of a straight segment where the segment's steps differ.
    steps = np.diff(points, axis=0)
    turns = np.abs(steps[:-1, 0] * steps[1:, 1] - steps[:-1, 1] * steps[1:, 0]) > 1e-12
    points = points[np.concatenate([[True], turns, [True]])]
    if len(points) > at_most:
        points = points[np.linspace(0, len(points) - 1, at_most).round().astype(int)]
    return points


def confusion(labels: Array, scores: Array, threshold: float) -> dict[str, int]:
    """Counts of the confusion matrix; a score equal to the threshold counts as malignant."""
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(labels, scores >= threshold, labels=[0, 1]).tolist()
    (true_negatives, false_positives), (false_negatives, true_positives) = matrix
    return {
        "true_positives": true_positives,
        "false_positives": false_positives,
        "true_negatives": true_negatives,
        "false_negatives": false_negatives,
    }


def figures(
    labels: Array,
    scores: Array,
    threshold: float,
    specificities: Sequence[float],
    weights: Array,
    sensitivities: Sequence[float] = (),
) -> dict[str, Array]:
    """Every headline metric of each resample, arrays (B,); `weights` (B, N).

    A score equal to the threshold counts as malignant. `f1` is that of the malignant class,
    `macro_f1` the mean of both classes' and `weighted_f1` their mean weighted by the images of
    each, as scikit-learn's `f1_score` averages. `sensitivity_at_90` is the highest
    sensitivity of any threshold whose specificity is at least 90 %, `specificity_at_90` the
    reverse; neither is interpolated. Both classes must occur in every resample.
    """
    columns, ranks = _columns(labels, scores, threshold), _Ranks(labels, scores)

    def of_chunk(chunk: Array) -> dict[str, Array]:
        values = _from_sums(chunk @ columns)
        benign, malignant = ranks.cumulative(chunk)
        values["auc"] = ranks.area(chunk, benign, malignant)
        for level in specificities:
            name = f"sensitivity_at_{level * 100:g}"
            values[name] = ranks.sensitivity(benign, malignant, level)
        for level in sensitivities:
            name = f"specificity_at_{level * 100:g}"
            values[name] = ranks.specificity(benign, malignant, level)
        return values

    return by_chunk(of_chunk, weights)


def threshold_figures(
    labels: Array, scores: Array, threshold: float, weights: Array
) -> dict[str, Array]:
    """The metrics that need no ranks; NaN where they need a class that does not occur."""
    columns = _columns(labels, scores, threshold)
    return by_chunk(lambda chunk: _from_sums(chunk @ columns), weights)


def bootstrap_auc(labels: Array, scores: Array, weights: Array) -> Array:
    """ROC-AUC of each resample, (B,)."""
    ranks = _Ranks(labels, scores)

    def of_chunk(chunk: Array) -> dict[str, Array]:
        return {"auc": ranks.area(chunk, *ranks.cumulative(chunk))}

    return by_chunk(of_chunk, weights)["auc"]


def by_chunk(metrics: Callable[[Array], dict[str, Array]], weights: Array) -> dict[str, Array]:
    """Metrics (B,) of weights (B, N), a few resamples in float64 at a time."""
    size = max(1, _ELEMENTS // max(1, weights.shape[1]))
    chunks = [
        metrics(weights[first : first + size].astype(np.float64))
        for first in range(0, len(weights), size)
    ]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def calibration_columns(events: Array, probability: Array) -> Array:
    """(N, bins) summands: |weights @ columns|, summed over bins, is the error times the images."""
    bins = calibration.bin_numbers(probability)
    columns = np.zeros((len(events), calibration.BINS))
    columns[np.arange(len(events)), bins] = probability - events
    return columns


def _columns(labels: Array, scores: Array, threshold: float) -> Array:
    """(N, 6 + bins) summands of every metric that is a quotient of sums over images."""
    positive, predicted = labels == 1, scores >= threshold
    of_label = np.where(positive, scores, 1 - scores)
    return np.column_stack(
        [
            positive,
            ~positive,
            positive & predicted,
            ~positive & ~predicted,
            (scores - labels) ** 2,
            -np.log(np.clip(of_label, _SMALLEST, 1)),
            calibration_columns(labels, scores),
        ]
    ).astype(np.float64)


def _from_sums(sums: Array) -> dict[str, Array]:
    positives, negatives, hits, rejections, squares, losses = sums[:, :6].T
    images = positives + negatives
    with np.errstate(invalid="ignore"):
        sensitivity, specificity = hits / positives, rejections / negatives
        f1 = 2 * hits / (positives + hits + negatives - rejections)
        benign_f1 = 2 * rejections / (negatives + rejections + positives - hits)
    return {
        "accuracy": (hits + rejections) / images,
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "f1": f1,
        "macro_f1": (f1 + benign_f1) / 2,
        "weighted_f1": (positives * f1 + negatives * benign_f1) / images,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "brier": squares / images,
        "log_loss": losses / images,
        "calibration_error": np.abs(sums[:, 6:]).sum(axis=1) / images,
    }


class _Ranks:
    """Ranks of the scores of one class among those of the other, the same for all resamples."""

    def __init__(self, labels: Array, scores: Array) -> None:
        self.order = [
            (images := np.flatnonzero(labels == label))[np.argsort(scores[images], kind="stable")]
            for label in (0, 1)
        ]
        self.benign, self.malignant = (scores[order] for order in self.order)
        self.below = np.searchsorted(self.benign, self.malignant, "left")
        self.not_above = np.searchsorted(self.benign, self.malignant, "right")
        self.tied = not np.array_equal(self.below, self.not_above)

    def cumulative(self, weights: Array) -> tuple[Array, Array]:
        """Weights (B, n + 1) of the 0, 1, ... n lowest benign scores, and of the malignant ones."""
        sums = []
        for order in self.order:
            sums.append(np.zeros((len(weights), len(order) + 1)))
            np.cumsum(weights[:, order], axis=1, out=sums[-1][:, 1:])
        return sums[0], sums[1]

    def area(self, weights: Array, benign: Array, malignant: Array) -> Array:
        """(B,) AUC: each malignant image counts the benign ones below it, and half of its ties."""
        wins = benign[:, self.below]
        if self.tied:
            wins = (wins + benign[:, self.not_above]) / 2
        total = np.einsum("bi,bi->b", weights[:, self.order[1]], wins)
        return np.asarray(total / (benign[:, -1] * malignant[:, -1]))

    def sensitivity(self, benign: Array, malignant: Array, specificity: float) -> Array:
        """(B,) fraction of malignant scores above the lowest threshold with that specificity."""
        # Rates are quotients of whole numbers; rounding in the last digit must not decide.
        enough = benign >= (specificity - 1e-12) * benign[:, -1:]
        # The threshold lies above this benign score, or below all of them at specificity 0.
        highest = np.argmax(enough, axis=1) - 1
        first = np.where(
            highest < 0, 0, np.searchsorted(self.malignant, self.benign, "right")[highest]
        )
        lost = np.take_along_axis(malignant, first[:, None], axis=1)[:, 0]
        return np.asarray(1 - lost / malignant[:, -1])

    def specificity(self, benign: Array, malignant: Array, sensitivity: float) -> Array:
        """(B,) fraction of benign scores below the highest threshold with that sensitivity."""
        allowed = malignant <= (1 - sensitivity + 1e-12) * malignant[:, -1:]
        # The lowest malignant score that must be classified as malignant.
        lowest = np.minimum(allowed.sum(axis=1) - 1, len(self.malignant) - 1)
        rejected = np.take_along_axis(benign, self.below[lowest][:, None], axis=1)[:, 0]
        return np.asarray(rejected / benign[:, -1])
