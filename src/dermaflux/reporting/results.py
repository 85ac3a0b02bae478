"""What the evaluations say, summed over seeds. Reads reports/evaluate/*.json; writes nothing.

Two kinds of interval occur and are never mixed: within a cell, the bootstrap over test images that
`evaluate` computed; over cells, Student's t over seeds, which covers the draw of the training
images and of the initial weights but not that of the test images.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dermaflux import paths
from dermaflux.errors import InputError
from dermaflux.params import Params

METRICS = {
    "auc": "AUC",
    "accuracy": "Accuracy",
    "f1": "F1",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "sensitivity_at_90": "Sens. at 90 % spec.",
}
ARMS = {"real": "real only", "mixture": "real + synthetic"}


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
    difference: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the cell's folder."""
        return paths.cell(self.architecture, self.seed)

    def estimate(self, arm: str, metric: str) -> Estimate:
        """A metric of one arm with its bootstrap interval over test images."""
        return estimate(self.arms[arm], metric)


def estimate(figures: dict[str, Any], metric: str) -> Estimate:
    """`metric`, `metric_low` and `metric_high` of a flat dictionary."""
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
            arms: dict[str, dict[str, Any]] = {arm: content[arm] for arm in params.train.arms}
            cells.append(Cell(architecture, seed, arms, content.get("difference") or {}))
    return cells


def over_seeds(values: Sequence[float], confidence: float) -> Estimate:
    """Mean and Student's t interval of k >= 2 independent values; no interval for one value."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Estimate(mean)
    from scipy.special import stdtrit

    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(stdtrit(count - 1, (1 + confidence) / 2)) * deviation / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half)


def mean(cells: Sequence[Cell], architecture: str, arm: str, metric: str, level: float) -> Estimate:
    """A metric's mean over the seeds of an architecture, limits held inside [0, 1]."""
    values = [float(cell.arms[arm][metric]) for cell in cells if cell.architecture == architecture]
    found = over_seeds(values, level)
    return (
        Estimate(found.value, max(found.low, 0.0), min(found.high, 1.0))
        if (found.has_interval)
        else found
    )


def effect(cells: Sequence[Cell], architecture: str, level: float) -> Estimate | None:
    """Mean over seeds of AUC with minus AUC without synthetic images; None with a single arm.

    With one seed the interval is that of the cell's paired bootstrap over test images.
    """
    chosen = [cell for cell in cells if cell.architecture == architecture]
    if any(set(ARMS) - set(cell.arms) for cell in chosen):
        return None
    if len(chosen) == 1 and "auc" in chosen[0].difference:
        return estimate(chosen[0].difference, "auc")
    gains = [
        float(cell.arms["mixture"]["auc"]) - float(cell.arms["real"]["auc"]) for cell in chosen
    ]
    return over_seeds(gains, level)


def verdict(found: Estimate) -> str:
    """What adding synthetic images does, in one to three words."""
    if not found.has_interval:
        return "no interval"
    if found.low > 0:
        return "helps"
    if found.high < 0:
        return "harms"
    return "no clear effect"
