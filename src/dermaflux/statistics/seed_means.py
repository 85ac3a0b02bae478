"""Means over seeds whose intervals cover both the seeds and the test images.

Reads reports/evaluate/<cell>/predictions.csv of every cell and corpus/ (which test images show the
same lesion); writes nothing. All cells are evaluated on the same bootstrap resamples of the test
set, so every comparison is paired; `statistics.effects` combines the two variances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.arrays import Array
from dermaflux.core.files import read_csv, reading
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.statistics import bootstrap, comparison, effects
from dermaflux.statistics.comparison import Predictions
from dermaflux.statistics.evaluations import Cell, Estimate

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SeedMean:
    """One metric of one architecture and arm."""

    values: Array
    """(S,) one per seed."""
    resampled: Array
    """(B,) means over the seeds on B resamples of the test images, or (S, B) of each seed."""
    each: Array | None = None
    """(S, B), where `resampled` has the means."""

    @property
    def by_seed(self) -> SeedMean:
        """The same with the resamples of each seed."""
        return self if self.each is None else SeedMean(self.values, self.each)

    def estimate(self, confidence: float) -> Estimate:
        """Mean and interval, with limits clipped to [0, 1]."""
        mean = effects.effect(self.values, self.resampled, confidence)
        if not mean.has_interval:
            return Estimate(mean.value)
        return Estimate(mean.value, max(mean.low, 0.0), min(mean.high, 1.0))

    def minus(self, other: SeedMean, confidence: float, comparisons: int) -> effects.Effect:
        """The difference to another arm of the same seeds and images."""
        return effects.effect(
            self.values - other.values, self.resampled - other.resampled, confidence, comparisons
        )


Means = Mapping[tuple[str, str], Mapping[str, SeedMean]]
"""(architecture, arm) -> metric -> its mean."""


def read(cell: str) -> pd.DataFrame:
    """Test predictions of a cell, by image_id. Raises `InputError` when they are missing."""
    path = paths.EVALUATIONS / cell / "predictions.csv"
    stage = "`dvc repro`, or `dvc pull`"
    rows = read_csv(path, stage, texts=("image_id", "label"), index="image_id")
    with reading(path, stage):
        scores = rows.drop(columns="label").astype(float)
        if scores.isna().any(axis=None) or rows["label"].isna().any():
            raise ValueError("a cell is empty")
    return rows


def predictions(
    rows: pd.DataFrame, arm: str, figures: Mapping[str, Any]
) -> tuple[Array, Predictions]:
    """Labels (N,) and predictions of an arm, from the columns that `read` returns."""
    if arm in rows:
        labels = (rows["label"] == "malignant").to_numpy().astype(int)
        threshold = float(figures["threshold"])
        return labels, Predictions(rows[arm].to_numpy(), figures["temperature"], threshold)
    columns = [name for name in rows if name.startswith(f"{arm}/")]
    index = {name.removeprefix(f"{arm}/"): k for k, name in enumerate(columns)}
    labels = rows["label"].map(index).to_numpy()
    return labels, Predictions(rows[columns].to_numpy(), figures["temperature"])


def lesions(image_ids: Sequence[str]) -> Array:
    """(N,) group numbers of test images: equal for images of one lesion or duplicate group.

    Raises `InputError` when an image is not in the test split of the corpus.
    """
    columns = ["image_id", "source", "lesion_id", "duplicate_group"]
    rows = table.metadata(paths.CORPUS, columns, "test").set_index("image_id")
    absent = [name for name in image_ids if name not in rows.index]
    if absent:
        raise InputError(
            f"{len(absent)} evaluated images such as {absent[0]} are not in the test split of "
            f"{paths.CORPUS}; run `dvc repro`, or `dvc checkout corpus` on the commit "
            "they were evaluated on"
        )
    return bootstrap.groups(rows.loc[list(image_ids)].reset_index())


def means(params: Params, cells: Sequence[Cell]) -> Means:
    """Every metric of every architecture and arm, in the order of the parameters.

    Raises `InputError` when two cells were evaluated on different test images.
    """
    first = read(cells[0].name)
    weights: Array | None = None
    values: dict[tuple[str, str], dict[str, list[float]]] = {}
    resamples: dict[tuple[str, str], dict[str, list[Array]]] = {}
    once = np.ones((1, len(first)), np.int32)
    for cell in cells:
        rows = first if cell is cells[0] else read(cell.name)
        if not rows.index.equals(first.index):
            raise InputError(
                f"{cell.name} was evaluated on {len(rows)} images and {cells[0].name} on "
                f"{len(first)}, and they are not the same; run `dvc repro`"
            )
        if len(rows) != cell.test.get("images", len(rows)):
            raise InputError(
                f"{cell.name} has predictions for {len(rows)} test images, but its figures are of "
                f"{cell.test['images']}; run `dvc repro`"
            )
        for arm, figures in cell.arms.items():
            with reading(paths.EVALUATIONS / f"{cell.name}.json", "`dvc repro`"):
                labels, of_arm = predictions(rows, arm, figures)
            if weights is None:
                members = lesions(list(rows.index))
                count = params.evaluate.bootstrap_samples
                weights = bootstrap.resamples(labels, members, count, seed=0)
            key = (cell.architecture, arm)
            point = comparison.figures(labels, of_arm, params.evaluate, once)
            resampled = comparison.figures(labels, of_arm, params.evaluate, weights)
            for name, value in point.items():
                values.setdefault(key, {}).setdefault(name, []).append(float(value[0]))
                resamples.setdefault(key, {}).setdefault(name, []).append(resampled[name])
    return {
        key: {
            name: SeedMean(np.array(seeds), each.sum(axis=0) / len(each), each)
            for name, seeds in by_metric.items()
            for each in [np.array(resamples[key][name])]
        }
        for key, by_metric in values.items()
    }
