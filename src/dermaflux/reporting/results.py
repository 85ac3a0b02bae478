"""Which metrics of the evaluations are shown, and their titles.

There are two kinds of interval: within a cell, the bootstrap over test images from `evaluate`; over
the seeds of an architecture, that of `seed_means`, which covers seeds and test images.
"""

from __future__ import annotations

from dermaflux.params import Params
from dermaflux.statistics.evaluations import Cell

METRICS = {
    "auc": "AUC",
    "mauc": "Macro AUC",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "weighted_f1": "Weighted F1",
    "f1": "F1",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
}
"""Columns of the tables, as far as the evaluation has them."""
HEADLINES = {"auc": "AUC", "mauc": "macro AUC"}
"""Metric by which arms are compared -> its name in a sentence."""


def headline(params: Params) -> str:
    """The metric by which arms are compared."""
    return "auc" if params.train.labels == "malignancy" else "mauc"


def columns(cells: list[Cell]) -> dict[str, str]:
    """Metric -> title, of the metrics that every arm of every cell has."""
    arms = [metrics for cell in cells for metrics in cell.arms.values()]
    return {name: title for name, title in METRICS.items() if all(name in arm for arm in arms)}


def operating_points(params: Params) -> dict[str, str]:
    """Sensitivity at a specificity, or the reverse -> its title; for malignancy only."""
    titles: dict[str, str] = {}
    if params.train.labels != "malignancy":
        return titles
    for rate in params.evaluate.specificities:
        titles[f"sensitivity_at_{rate * 100:g}"] = f"Sens. at {rate * 100:g} % spec."
    for rate in params.evaluate.sensitivities:
        titles[f"specificity_at_{rate * 100:g}"] = f"Spec. at {rate * 100:g} % sens."
    return titles
