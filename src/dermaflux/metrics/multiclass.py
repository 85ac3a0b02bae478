"""Metrics of a classifier of K diagnoses, for one sample and for many bootstrap resamples at once.

Pure functions on numpy arrays. `labels` (N,) are class numbers, `probability` (N, K) rows that sum
to 1, weights (B, N) as in `binary`. `mauc` is the macro mean of one-versus-rest AUCs (each class
against all others, as VAP-Diffusion reports it), not the mean over pairs of Hand and Till 2001. A
class that does not occur in the labels has no metrics and is left out of every mean; it can still
be predicted.
"""

from __future__ import annotations

import numpy as np

from dermaflux.core.arrays import Array
from dermaflux.metrics import binary, calibration


def mauc(labels: Array, probability: Array) -> float:
    """Macro one-versus-rest AUC over the classes that occur; NaN when only one class occurs."""
    present = np.unique(labels)
    if len(present) < 2:
        return float("nan")
    return float(np.mean([binary.auc(labels == k, probability[:, k]) for k in present]))


def majority_accuracy(labels: Array) -> float:
    """Accuracy of always predicting the most frequent class of these labels, (N,) class numbers."""
    return float(np.bincount(labels).max() / len(labels))


def figures(labels: Array, probability: Array, weights: Array) -> dict[str, Array]:
    """Metrics (B,): `mauc`, `macro_f1`, `weighted_f1` (by the images of each class), `accuracy`,
    `balanced_accuracy`, `log_loss` and `calibration_error` (of the most probable class); at least
    two classes must occur.
    """
    present = np.unique(labels)
    aucs = [binary.bootstrap_auc(labels == k, probability[:, k], weights) for k in present]
    by_class = [class_figures(labels, probability, k, weights) for k in present]
    of_class = (labels[:, None] == present).astype(float)
    images = binary.by_chunk(lambda chunk: {"images": chunk @ of_class}, weights)["images"]
    f1 = np.column_stack([values["f1"] for values in by_class])
    return {
        "mauc": np.mean(aucs, axis=0),
        "macro_f1": f1.mean(axis=1),
        "weighted_f1": (images * f1).sum(axis=1) / images.sum(axis=1),
        "balanced_accuracy": np.mean([values["sensitivity"] for values in by_class], axis=0),
        **overall(labels, probability, weights),
    }


def overall(labels: Array, probability: Array, weights: Array) -> dict[str, Array]:
    """`accuracy`, `log_loss` and `calibration_error` (B,), defined whatever classes occur."""
    events, confidence = calibration.outcomes(labels, probability)
    of_label = probability[np.arange(len(labels)), labels]
    columns = np.column_stack(
        [
            np.ones(len(labels)),
            events,
            -np.log(np.clip(of_label, 1e-15, 1)),
            binary.calibration_columns(events, confidence),
        ]
    )
    sums = binary.by_chunk(lambda chunk: {"sums": chunk @ columns}, weights)["sums"]
    return {
        "accuracy": sums[:, 1] / sums[:, 0],
        "log_loss": sums[:, 2] / sums[:, 0],
        "calibration_error": np.abs(sums[:, 3:]).sum(axis=1) / sums[:, 0],
    }


def class_figures(labels: Array, probability: Array, k: int, weights: Array) -> dict[str, Array]:
    """`sensitivity`, `specificity` and `f1` (B,) of class k against the rest; the most probable
    class is the predicted one.
    """
    positive, predicted = labels == k, probability.argmax(axis=1) == k
    counts = [positive, predicted, positive & predicted, ~positive, ~positive & ~predicted]
    columns = np.column_stack(counts).astype(float)
    sums = binary.by_chunk(lambda chunk: {"sums": chunk @ columns}, weights)["sums"]
    positives, predictions, hits, negatives, rejections = sums.T
    with np.errstate(invalid="ignore"):
        return {
            "sensitivity": hits / positives,
            "specificity": rejections / negatives,
            "f1": 2 * hits / (positives + predictions),
        }
