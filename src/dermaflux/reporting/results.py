"""What the evaluations say, cell by cell. Reads reports/evaluate/*.json; writes nothing.

Two kinds of interval occur: within a cell, the bootstrap over test images that `evaluate` computed;
over the seeds of an architecture, the one of `seed_means`, which covers seeds and test images.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from dermaflux import paths
from dermaflux.errors import InputError
from dermaflux.params import Params

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
"""Columns of the tables, of those that the evaluation has; operating points follow them."""
ARMS = {
    "real": "real only",
    "mixture": "real + synthetic",
    "repeated": "real, repeated",
    "augmented": "real, strongly augmented",
    "random_features": "real, random features",
}


@dataclass(frozen=True)
class Estimate:
    """A value with an interval; both limits are NaN when no interval can be given."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def has_interval(self) -> bool:
        """Whether the limits are numbers."""
        return not math.isnan(self.low)


@dataclass(frozen=True)
class Cell:
    """Test figures of one architecture and seed: arm -> metric -> value."""

    architecture: str
    seed: int
    arms: dict[str, dict[str, Any]]
    test: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the cell's folder."""
        return paths.cell(self.architecture, self.seed)

    def estimate(self, arm: str, metric: str) -> Estimate:
        """A metric of one arm with its bootstrap interval over test images."""
        figures = self.arms[arm]
        return Estimate(
            float(figures[metric]),
            float(figures.get(f"{metric}_low", math.nan)),
            float(figures.get(f"{metric}_high", math.nan)),
        )


def load(params: Params) -> list[Cell]:
    """All cells of the matrix; raise `InputError` when one was not evaluated."""
    cells = []
    for architecture in params.train.architectures:
        for seed in params.train.seeds:
            path = paths.EVALUATIONS / f"{paths.cell(architecture, seed)}.json"
            if not path.is_file():
                raise InputError(f"{path} is missing; run `dvc repro evaluate`")
            content = json.loads(path.read_text(encoding="utf-8"))
            missing = [arm for arm in params.train.arms if arm not in content]
            if missing:
                raise InputError(f"{path} has no arm {missing[0]!r}; run `dvc repro evaluate`")
            arms: dict[str, dict[str, Any]] = {arm: content[arm] for arm in params.train.arms}
            cells.append(Cell(architecture, seed, arms, content["test"]))
    return cells


def headline(params: Params) -> str:
    """The figure that arms are compared by."""
    return "auc" if params.train.labels == "malignancy" else "mauc"


def columns(params: Params, cells: list[Cell]) -> dict[str, str]:
    """Figures of the tables -> their titles, those that every arm of every cell has."""
    titles = dict(METRICS)
    for wanted in params.evaluate.specificities:
        titles[f"sensitivity_at_{wanted * 100:g}"] = f"Sens. at {wanted * 100:g} % spec."
    for wanted in params.evaluate.sensitivities:
        titles[f"specificity_at_{wanted * 100:g}"] = f"Spec. at {wanted * 100:g} % sens."
    arms = [figures for cell in cells for figures in cell.arms.values()]
    return {name: title for name, title in titles.items() if all(name in had for had in arms)}
