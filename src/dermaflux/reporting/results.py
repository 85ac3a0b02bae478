"""Which figures of the evaluations are shown, and their titles.

Two kinds of interval occur: within a cell, the bootstrap over test images that `evaluate` computed;
over the seeds of an architecture, the one of `seed_means`, which covers seeds and test images.
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
    "f1": "F1",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
}
"""Columns of the tables, of those that the evaluation has."""


def headline(params: Params) -> str:
    """The figure that arms are compared by."""
    return "auc" if params.train.labels == "malignancy" else "mauc"


def columns(cells: list[Cell]) -> dict[str, str]:
    """Figures of the tables -> their titles, those that every arm of every cell has."""
    arms = [figures for cell in cells for figures in cell.arms.values()]
    return {name: title for name, title in METRICS.items() if all(name in had for had in arms)}


def operating_points(params: Params) -> dict[str, str]:
    """One rate at a value of the other -> its title; of benign against malignant only."""
    titles: dict[str, str] = {}
    if params.train.labels != "malignancy":
        return titles
    for wanted in params.evaluate.specificities:
        titles[f"sensitivity_at_{wanted * 100:g}"] = f"Sens. at {wanted * 100:g} % spec."
    for wanted in params.evaluate.sensitivities:
        titles[f"specificity_at_{wanted * 100:g}"] = f"Spec. at {wanted * 100:g} % sens."
    return titles
