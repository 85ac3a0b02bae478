"""Means over seeds whose intervals cover the seeds and the test images alike.

Reads reports/evaluate/<cell>/predictions.csv of every cell and corpus/ (which test images show one
lesion); writes nothing. All cells are scored on the same bootstrap resamples of the test set, so
whatever is compared is paired; `classifiers.effects` says how the two variances join.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.arrays import Array
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.statistics import bootstrap, comparison, effects
from dermaflux.statistics.comparison import Scored
from dermaflux.statistics.evaluations import Cell, Estimate

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SeedMean:
    """One figure of one architecture and arm."""

    values: Array
    """(S,) one per seed."""
    resampled: Array
    """(B,) means over the seeds on B resamples of the test images."""

    def estimate(self, confidence: float) -> Estimate:
        """Mean and interval, limits held inside [0, 1]."""
        found = effects.effect(self.values, self.resampled, confidence)
        if not found.has_interval:
            return Estimate(found.value)
        return Estimate(found.value, max(found.low, 0.0), min(found.high, 1.0))

    def minus(self, other: SeedMean, confidence: float, comparisons: int) -> effects.Effect:
        """The difference to another arm of the same seeds and images."""
        return effects.effect(
            self.values - other.values, self.resampled - other.resampled, confidence, comparisons
        )


Means = Mapping[tuple[str, str], Mapping[str, SeedMean]]
"""(architecture, arm) -> figure -> its mean."""


def read(cell: str) -> pd.DataFrame:
    """Test predictions of a cell, by image_id. Raises `InputError` when they are not there."""
    import pandas as pd

    path = paths.EVALUATIONS / cell / "predictions.csv"
    if not path.is_file():
        raise InputError(f"{path} is missing; run `dvc repro evaluate`, or `dvc pull`")
    return pd.read_csv(path, dtype={"image_id": str, "label": str}).set_index("image_id")


def scored(rows: pd.DataFrame, arm: str, figures: Mapping[str, Any]) -> tuple[Array, Scored]:
    """Labels (N,) and what an arm made of them, from the columns `read` gives."""
    if arm in rows:
        labels = (rows["label"] == "malignant").to_numpy().astype(int)
        threshold = float(figures["threshold"])
        return labels, Scored(rows[arm].to_numpy(), figures["temperature"], threshold)
    names = [name for name in rows if name.startswith(f"{arm}/")]
    number = {name.removeprefix(f"{arm}/"): place for place, name in enumerate(names)}
    labels = rows["label"].map(number).to_numpy()
    return labels, Scored(rows[names].to_numpy(), figures["temperature"])


def lesions(image_ids: Sequence[str]) -> Array:
    """(N,) numbers of the lesions that these test images show.

    Raises `InputError` when the corpus lacks one of them.
    """
    columns = ["image_id", "source", "lesion_id", "duplicate_group"]
    rows = table.metadata(paths.CORPUS, columns, "test").set_index("image_id")
    absent = [name for name in image_ids if name not in rows.index]
    if absent:
        raise InputError(
            f"{len(absent)} images such as {absent[0]} were tested but are no test images of "
            f"{paths.CORPUS}; run `dvc repro evaluate`, or `dvc checkout corpus` on the commit "
            "they were tested on"
        )
    return bootstrap.groups(rows.loc[list(image_ids)].reset_index())


def means(params: Params, cells: Sequence[Cell]) -> Means:
    """Every figure of every architecture and arm, in the order of the parameters."""
    first = read(cells[0].name)
    weights: Array | None = None
    values: dict[tuple[str, str], dict[str, list[float]]] = {}
    sums: dict[tuple[str, str], dict[str, Array]] = {}
    once = np.ones((1, len(first)), np.int32)
    for cell in cells:
        rows = first if cell is cells[0] else read(cell.name)
        if not rows.index.equals(first.index):
            raise InputError(
                f"{cell.name} was tested on {len(rows)} images and {cells[0].name} on "
                f"{len(first)}, or others; run `dvc repro evaluate` so that they agree"
            )
        for arm, figures in cell.arms.items():
            labels, given = scored(rows, arm, figures)
            if weights is None:
                members = lesions(list(rows.index))
                count = params.evaluate.bootstrap_samples
                weights = bootstrap.resamples(labels, members, count, seed=0)
            place = (cell.architecture, arm)
            point = comparison.figures(labels, given, params.evaluate, once)
            drawn = comparison.figures(labels, given, params.evaluate, weights)
            for name, number in point.items():
                values.setdefault(place, {}).setdefault(name, []).append(float(number[0]))
                total = sums.setdefault(place, {})
                total[name] = total.get(name, 0.0) + drawn[name]
    return {
        place: {
            name: SeedMean(np.array(seeds), sums[place][name] / len(seeds))
            for name, seeds in found.items()
        }
        for place, found in values.items()
    }
