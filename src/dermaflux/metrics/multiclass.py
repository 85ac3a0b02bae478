"""Figures of a classifier of K diagnoses, for one sample and for many bootstrap resamples at once.

Pure functions on numpy arrays. `labels` (N,) are class numbers, `probability` (N, K) rows that sum
to 1, weights (B, N) as in `metrics`. `mauc` is the macro mean of one-versus-rest AUCs (each class
against all others, as VAP-Diffusion reports it), not the mean over pairs of Hand and Till 2001. A
class that the labels lack has no figures and takes no part in a mean; it can still be called.
"""

from __future__ import annotations

import numpy as np

from dermaflux.core.arrays import Array
from dermaflux.metrics import binary, calibration


def mauc(labels: Array, probability: Array) -> float:
    """Macro one-versus-rest AUC over the classes that occur; NaN when only one does."""
    present = np.unique(labels)
    if len(present) < 2:
        return float("nan")
    return float(np.mean([binary.auc(labels == name, probability[:, name]) for name in present]))


def figures(labels: Array, probability: Array, weights: Array) -> dict[str, Array]:
    """Figures (B,): `mauc`, `macro_f1`, `accuracy`, `balanced_accuracy`, `log_loss` and
    `calibration_error` (of the likeliest class); two classes at least must occur.
    """
    present = np.unique(labels)
    aucs = [binary.bootstrap_auc(labels == k, probability[:, k], weights) for k in present]
    by_class = [class_figures(labels, probability, name, weights) for name in present]
    return {
        "mauc": np.mean(aucs, axis=0),
        "macro_f1": np.mean([found["f1"] for found in by_class], axis=0),
        "balanced_accuracy": np.mean([found["sensitivity"] for found in by_class], axis=0),
        **overall(labels, probability, weights),
    }


def overall(labels: Array, probability: Array, weights: Array) -> dict[str, Array]:
    """`accuracy`, `log_loss` and `calibration_error` (B,), which need no class to occur."""
    events, likeliest = calibration.outcomes(labels, probability)
    own = probability[np.arange(len(labels)), labels]
    columns = np.column_stack(
        [
            np.ones(len(labels)),
            events,
            -np.log(np.clip(own, 1e-15, 1)),
            binary.calibration_columns(events, likeliest),
        ]
    )
    sums = binary.by_chunk(lambda rows: {"sums": rows @ columns}, weights)["sums"]
    return {
        "accuracy": sums[:, 1] / sums[:, 0],
        "log_loss": sums[:, 2] / sums[:, 0],
        "calibration_error": np.abs(sums[:, 3:]).sum(axis=1) / sums[:, 0],
    }


def class_figures(labels: Array, probability: Array, name: int, weights: Array) -> dict[str, Array]:
    """`sensitivity`, `specificity` and `f1` (B,) of one class against the rest, the likeliest class
    being the one called.
    """
    own, called = labels == name, probability.argmax(axis=1) == name
    columns = np.column_stack([own, called, own & called, ~own, ~own & ~called]).astype(float)
    sums = binary.by_chunk(lambda rows: {"sums": rows @ columns}, weights)["sums"]
    count, calls, hits, others, rejections = sums.T
    with np.errstate(invalid="ignore"):
        return {
            "sensitivity": hits / count,
            "specificity": rejections / others,
            "f1": 2 * hits / (count + calls),
        }
