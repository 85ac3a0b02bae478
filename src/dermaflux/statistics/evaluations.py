"""Results of the stage `evaluate` per cell. Reads reports/evaluate/*.json; writes nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    shortages: dict[str, str] = field(default_factory=dict)
    """Arm that is not among `arms`, since the training split is too small for it -> a sentence."""

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
        trained = params.training(architecture).arms
        for seed in params.train.seeds:
            path = paths.EVALUATIONS / f"{paths.cell(architecture, seed)}.json"
            content = read_json(path, "`dvc repro`", "test")
            if not isinstance(content.get("shortages", {}), dict):
                raise damaged(path, "its shortages are no object", "`dvc repro`")
            wanted = distinct(trained, content)
            missing = [arm for arm in wanted if arm not in content]
            if missing:
                raise InputError(f"{path} has no arm {missing[0]!r}; run `dvc repro`")
            if not all(isinstance(content[key], dict) for key in ("test", *wanted)):
                raise damaged(path, "its arms hold no figures", "`dvc repro`")
            arms: dict[str, dict[str, Any]] = {arm: content[arm] for arm in wanted}
            short = {arm: str(why) for arm, why in shortages(content).items() if arm in trained}
            cells.append(Cell(architecture, seed, arms, content["test"], short))
            first = next(cell for cell in cells if cell.architecture == architecture)
            if list(arms) != list(first.arms):
                raise InputError(
                    f"{path} has the arms {', '.join(arms)} and {first.name} "
                    f"{', '.join(first.arms)}; run `dvc repro`, so that they are of one training "
                    "split"
                )
    return cells


def said(cells: Sequence[Cell]) -> list[str]:
    """What the training split was too small for, each sentence once."""
    return list(dict.fromkeys(why for cell in cells for why in cell.shortages.values()))


def shortages(content: Mapping[str, Any]) -> dict[str, str]:
    """Arm -> why it could not be trained, of what `evaluate` wrote of a cell."""
    return dict(content.get("shortages", {}))


def distinct(arms: Sequence[str], content: Mapping[str, Any]) -> list[str]:
    """The arms that are what their names say; those that came out as another one are left out.

    Where that would leave none, all are kept that `evaluate` found.
    """
    short = shortages(content)
    return [arm for arm in arms if arm not in short] or [arm for arm in arms if arm in content]
