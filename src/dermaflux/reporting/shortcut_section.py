"""What the page says of shortcuts: AUC without a look at the lesion, and arms of other sources.

Pure functions on the evaluated cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from dermaflux.metrics.shortcuts import SHORTCUTS
from dermaflux.params import SHORTCUT_LIMIT
from dermaflux.statistics.evaluations import Cell

_DIFFERENT = 0.05
"""Difference in AUC of the source alone from which the arms differ in their composition."""


@dataclass(frozen=True)
class Row:
    """What one fact alone scores, mean over the cells."""

    name: str
    test: float
    validation: float

    @property
    def high(self) -> bool:
        """Whether it is above the limit that the stages warn of."""
        return max(self.test, self.validation) > SHORTCUT_LIMIT


def table(cells: Sequence[Cell], metric: str) -> list[Row]:
    """A row for each fact; none where a cell was evaluated without them."""
    rows = []
    for name, words in SHORTCUTS.items():
        test, validation = (
            _mean(cells, f"{prefix}{name}_{metric}") for prefix in ("", "validation_")
        )
        if test is not None and validation is not None:
            rows.append(Row(words, test, validation))
    return rows


def compositions(cells: Sequence[Cell], metric: str) -> dict[str, str]:
    """Architecture -> that real and mixture differ in their sources; no last full stop.

    Named where the source alone tells the class of the real images, and tells less or more of it
    among the mixture's: a change between the arms may then be one of that shortcut.
    """
    said = {}
    for architecture in dict.fromkeys(cell.architecture for cell in cells):
        own = [cell for cell in cells if cell.architecture == architecture]
        real, mixture = (
            _mean(own, f"training_source_{metric}", arm) for arm in ("real", "mixture")
        )
        if real is None or mixture is None or max(real, mixture) <= SHORTCUT_LIMIT:
            continue
        if abs(real - mixture) >= _DIFFERENT:
            alike = "; the arm shuffled shares that difference" if "shuffled" in own[0].arms else ""
            said[architecture] = (
                "The arms real and mixture are composed of different sources: where an image is "
                f"from tells its class with AUC {real:.3f} among the training images of real and "
                f"{mixture:.3f} among those of mixture. Part of the change may come from that and "
                f"not from what the images show{alike}. train.draw: matched rules it out"
            )
    return said


def _mean(cells: Sequence[Cell], name: str, arm: str | None = None) -> float | None:
    """Mean of a figure over the cells, of one arm or of the first; None where one lacks it."""
    values: list[float] = []
    for cell in cells:
        figures: Mapping[str, float] = cell.arms.get(arm or next(iter(cell.arms)), {})
        if name not in figures:
            return None
        values.append(float(figures[name]))
    return fmean(values) if values else None
