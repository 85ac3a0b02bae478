"""Results of the stage `evaluate` per cell. Reads reports/evaluate/*.json; writes nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dermaflux import paths
from dermaflux.core.files import damaged, read_json
from dermaflux.errors import InputError
from dermaflux.params import Params


@dataclass(frozen=True)
class Estimate:
    """A value with an interval; both limits are NaN when it has none."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def has_interval(self) -> bool:
        """Whether the limits are numbers."""
        return not math.isnan(self.low)


@dataclass(frozen=True)
class Cell:
    """Test metrics of one architecture and seed: arm -> metric -> value."""

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
    """All cells of the matrix. Raises `InputError` when one was not evaluated."""
    cells = []
    for architecture in params.architectures():
        wanted = params.training(architecture).arms
        for seed in params.train.seeds:
            path = paths.EVALUATIONS / f"{paths.cell(architecture, seed)}.json"
            content = read_json(path, "`dvc repro`", "test")
            missing = [arm for arm in wanted if arm not in content]
            if missing:
                raise InputError(f"{path} has no arm {missing[0]!r}; run `dvc repro`")
            if not all(isinstance(content[key], dict) for key in ("test", *wanted)):
                raise damaged(path, "its arms hold no figures", "`dvc repro`")
            arms: dict[str, dict[str, Any]] = {arm: content[arm] for arm in wanted}
            cells.append(Cell(architecture, seed, arms, content["test"]))
    return cells
