"""Figures of a binary classifier, for one sample and for many bootstrap resamples at once.

Pure functions on numpy arrays. `labels` (N,) holds 0 or 1 (1 is malignant), `scores` (N,)
probabilities in [0, 1]. A resample is a row of integer weights (B, N): how often each image
occurs in it. Every figure is in [0, 1], higher is better, but for the Brier score, the calibration
error and the log loss (in nats, from 0 up), where lower is better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dermaflux.core.arrays import Array
from dermaflux.metrics import calibration

_ELEMENTS = 125_000  # weights handled at a time: 1 MB in float64 stays in the cache
_SMALLEST = 1e-15


def auc(labels: Array, scores: Array) -> float:
    """Area under the ROC curve: P(malignant score > benign) + P(equal) / 2."""
    return float(bootstrap_auc(labels, scores, np.ones((1, len(labels))))[0])


def roc_points(labels: Array, scores: Array, at_most: int = 200) -> Array:
    """(K, 2) false and true positive rates from (0, 0) to (1, 1), K <= `at_most`, thinned evenly.

    Points inside a straight run are left out first, as they carry nothing.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    sides = [np.cumsum(labels[order] == side)[last] for side in (0, 1)]
    points: Array = np.column_stack([np.append(0.0, side / side[-1]) for side in sides])
    steps = np.diff(points, axis=0)
    turns = np.abs(steps[:-1, 0] * steps[1:, 1] - steps[:-1, 1] * steps[1:, 0]) > 1e-12
    points = points[np.concatenate([[True], turns, [True]])]
    if len(points) > at_most:
        points = points[np.linspace(0, len(points) - 1, at_most).round().astype(int)]
    return points


def confusion(labels: Array, scores: Array, threshold: float) -> dict[str, int]:
    """How many images of each class are called what; a score at the threshold is malignant."""
    called = scores >= threshold
    return {
        "true_positives": int((called & (labels == 1)).sum()),
        "false_positives": int((called & (labels == 0)).sum()),
        "true_negatives": int((~called & (labels == 0)).sum()),
        "false_negatives": int((~called & (labels == 1)).sum()),
    }


def figures(
    labels: Array,
    scores: Array,
    threshold: float,
    specificities: Sequence[float],
    weights: Array,
    sensitivities: Sequence[float] = (),
) -> dict[str, Array]:
    """Every headline figure of each resample, arrays (B,); `weights` (B, N).

    A score at the threshold counts as malignant. `sensitivity_at_90` is the highest sensitivity of
    any threshold whose specificity is at least 90 %, `specificity_at_90` the reverse; neither is
    interpolated. Both classes must occur in every resample.
    """
    columns, ranks = _columns(labels, scores, threshold), _Ranks(labels, scores)

    def part(rows: Array) -> dict[str, Array]:
        found = _from_sums(rows @ columns)
        benign, malignant = ranks.cumulated(rows)
        found["auc"] = ranks.area(rows, benign, malignant)
        for wanted in specificities:
            name = f"sensitivity_at_{wanted * 100:g}"
            found[name] = ranks.sensitivity(benign, malignant, wanted)
        for wanted in sensitivities:
            name = f"specificity_at_{wanted * 100:g}"
            found[name] = ranks.specificity(benign, malignant, wanted)
        return found

    return by_chunk(part, weights)


def threshold_figures(
    labels: Array, scores: Array, threshold: float, weights: Array
) -> dict[str, Array]:
    """The figures that need no ranks; NaN where they need a class that does not occur."""
    columns = _columns(labels, scores, threshold)
    return by_chunk(lambda rows: _from_sums(rows @ columns), weights)


def bootstrap_auc(labels: Array, scores: Array, weights: Array) -> Array:
    """ROC-AUC of each resample, (B,)."""
    ranks = _Ranks(labels, scores)
    found = by_chunk(lambda rows: {"auc": ranks.area(rows, *ranks.cumulated(rows))}, weights)
    return found["auc"]


def by_chunk(figure: Callable[[Array], dict[str, Array]], weights: Array) -> dict[str, Array]:
    """Figures (B,) of weights (B, N), a few rows in float64 at a time."""
    chunk = max(1, _ELEMENTS // max(1, weights.shape[1]))
    parts = [
        figure(weights[first : first + chunk].astype(np.float64))
        for first in range(0, len(weights), chunk)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def calibration_columns(events: Array, probability: Array) -> Array:
    """(N, bins) summands: the mean over bins of |weights @ columns| is the calibration error."""
    number = calibration.bin_numbers(probability)
    columns = np.zeros((len(events), calibration.BINS))
    columns[np.arange(len(events)), number] = probability - events
    return columns


def _columns(labels: Array, scores: Array, threshold: float) -> Array:
    """(N, 6 + bins) summands of every figure that is a quotient of sums over images."""
    positive, called = labels == 1, scores >= threshold
    own = np.where(positive, scores, 1 - scores)
    return np.column_stack(
        [
            positive,
            ~positive,
            positive & called,
            ~positive & ~called,
            (scores - labels) ** 2,
            -np.log(np.clip(own, _SMALLEST, 1)),
            calibration_columns(labels, scores),
        ]
    ).astype(np.float64)


def _from_sums(sums: Array) -> dict[str, Array]:
    positives, negatives, hits, rejections, squares, losses = sums[:, :6].T
    images = positives + negatives
    with np.errstate(invalid="ignore"):
        sensitivity, specificity = hits / positives, rejections / negatives
        f1 = 2 * hits / (positives + hits + negatives - rejections)
    return {
        "accuracy": (hits + rejections) / images,
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "f1": f1,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "brier": squares / images,
        "log_loss": losses / images,
        "calibration_error": np.abs(sums[:, 6:]).sum(axis=1) / images,
    }


class _Ranks:
    """Where the scores of one class lie among those of the other, found once for all resamples."""

    def __init__(self, labels: Array, scores: Array) -> None:
        self.order = [
            (where := np.flatnonzero(labels == side))[np.argsort(scores[where], kind="stable")]
            for side in (0, 1)
        ]
        self.benign, self.malignant = (scores[order] for order in self.order)
        self.below = np.searchsorted(self.benign, self.malignant, "left")
        self.not_above = np.searchsorted(self.benign, self.malignant, "right")
        self.tied = not np.array_equal(self.below, self.not_above)

    def cumulated(self, rows: Array) -> tuple[Array, Array]:
        """(B, n + 1) weight of the 0, 1, ... n lowest scores of the benign, of the malignant."""
        sides = []
        for order in self.order:
            sums = np.zeros((len(rows), len(order) + 1))
            np.cumsum(rows[:, order], axis=1, out=sums[:, 1:])
            sides.append(sums)
        return sides[0], sides[1]

    def area(self, rows: Array, benign: Array, malignant: Array) -> Array:
        """(B,) AUC: each malignant image counts the benign ones below it, and half of its ties."""
        wins = benign[:, self.below]
        if self.tied:
            wins = (wins + benign[:, self.not_above]) / 2
        total = np.einsum("bi,bi->b", rows[:, self.order[1]], wins)
        return np.asarray(total / (benign[:, -1] * malignant[:, -1]))

    def sensitivity(self, benign: Array, malignant: Array, specificity: float) -> Array:
        """(B,) share of malignant scores above the lowest threshold with that specificity."""
        # Rates are quotients of whole numbers; half a unit in the last place must not decide.
        enough = benign >= (specificity - 1e-12) * benign[:, -1:]
        # The threshold lies above this benign score, and above none when 0 of them are enough.
        highest = np.argmax(enough, axis=1) - 1
        first = np.where(
            highest < 0, 0, np.searchsorted(self.malignant, self.benign, "right")[highest]
        )
        lost = np.take_along_axis(malignant, first[:, None], axis=1)[:, 0]
        return np.asarray(1 - lost / malignant[:, -1])

    def specificity(self, benign: Array, malignant: Array, sensitivity: float) -> Array:
        """(B,) share of benign scores below the highest threshold with that sensitivity."""
        allowed = malignant <= (1 - sensitivity + 1e-12) * malignant[:, -1:]
        # This malignant score is the first that must be called so.
        count = len(self.malignant)
        lowest = np.minimum(allowed.sum(axis=1) - 1, count - 1)
        kept = np.take_along_axis(benign, self.below[lowest][:, None], axis=1)[:, 0]
        return np.asarray(kept / benign[:, -1])
