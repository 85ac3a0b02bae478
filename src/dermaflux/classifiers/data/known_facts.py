"""What is known of a cell's images without looking at the lesion, and what that alone would score.

Reads `corpus/` (splits train and validation, and of the images of the test split that `evaluate`
has opened their pixels); writes nothing. The mathematics is in `metrics.shortcuts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dermaflux import paths
from dermaflux.classifiers.data import samples, training_set
from dermaflux.classifiers.data.subset import column
from dermaflux.classifiers.data.training_set import RealImages
from dermaflux.core import table
from dermaflux.core.arrays import Array
from dermaflux.core.vocabulary import CLASSES
from dermaflux.metrics import shortcuts
from dermaflux.metrics.shortcuts import Facts
from dermaflux.params import MIXED, SHORTCUT_LIMIT, Params

if TYPE_CHECKING:
    import pandas as pd

_FILES = 2000  # of a split, equally many of each class: a mean colour takes the pixels
_READ_TOGETHER = 64  # images
_SYNTHETIC = "synthetic"


def figures(
    params: Params, seed: int, arms: Sequence[str], test: pd.DataFrame
) -> dict[str, dict[str, float]]:
    """Arm -> figures to stand beside its own; none for arms without a real image.

    `source_auc`, `scale_auc` and `file_auc`: what these alone score on the test images, learned
    from the images of the arm `real`; with `validation_` before it, on the validation images that
    epochs are compared on; `training_source_auc`: what the source alone scores among the images
    that the arm trains on, synthetic ones being a source of their own. Of diagnoses `_mauc`.
    """
    drawn = training_set.draw(params, seed, arms)
    real = drawn.of("real")
    if real.empty:
        return {}
    classes = drawn.classes
    known = _facts(real, "train", params, classes)
    metric = "auc" if classes == CLASSES else "mauc"
    shared: dict[str, float] = {}
    for prefix, split, rows in (
        ("", "test", test),
        ("validation_", "validation", _validation(params, classes)),
    ):
        found = shortcuts.aucs(known, _facts(rows, split, params, classes), len(classes))
        shared |= {f"{prefix}{name}_{metric}": value for name, value in found.items()}
    return {arm: {**shared, f"training_source_{metric}": _composition(drawn, arm)} for arm in arms}


def lines(cell: str, figures: Mapping[str, float]) -> list[str]:
    """What `evaluate` prints of a cell: a line of all, and a warning of what scores too much."""
    metric = "auc" if "source_auc" in figures else "mauc"
    parts, high = [], []
    for name, words in shortcuts.SHORTCUTS.items():
        test, validation = (figures[f"{prefix}{name}_{metric}"] for prefix in ("", "validation_"))
        parts.append(f"{words} {test:.3f} and {validation:.3f}")
        for value, split in ((test, "test"), (validation, "validation")):
            if value > SHORTCUT_LIMIT:
                high.append(f"{words} alone {value:.3f} on the {split} images")
    said = [f"{cell}: AUC without a look at the lesion, on test and validation: {', '.join(parts)}"]
    if high:
        said.append(
            f"warning: {cell}: {', '.join(high)}, above {SHORTCUT_LIMIT}: a classifier can learn "
            "where an image is from in place of what it shows; train.draw matched draws both "
            "classes alike"
        )
    return said


def _validation(params: Params, classes: Sequence[str]) -> pd.DataFrame:
    """The validation images that epochs are compared on."""
    rows = table.metadata(paths.CORPUS, split="validation")
    rows = rows[rows[column(classes)].isin(classes)]
    compared = training_set.judges(params)
    return rows if compared is None else rows[rows["image_id"].isin(compared.listed)]


def _composition(drawn: RealImages, arm: str) -> float:
    classes, rows = drawn.classes, drawn.of(arm)
    labels, source = _labels(rows, classes), _text(rows["source"])
    if arm in MIXED:
        added = [drawn.draws.added[name] for name in classes]
        labels = np.concatenate([labels, np.repeat(np.arange(len(classes)), added)])
        source = np.concatenate([source, np.full(sum(added), _SYNTHETIC, object)])
    return shortcuts.composition(source, labels, len(classes))


def _facts(rows: pd.DataFrame, split: str, params: Params, classes: Sequence[str]) -> Facts:
    # The first by the hash of their bytes are a random sample, and the same in every cell.
    places = rows.reset_index(drop=True).sort_values(["sha256", "image_id"])
    by_class = places.groupby(column(classes), sort=False)
    sampled = np.sort(by_class.head(_FILES // len(classes)).index.to_numpy())
    chosen = rows.iloc[sampled]
    ids, side = list(chosen["image_id"]), params.train.image_size
    pixels = samples.load(paths.CORPUS, chosen, ids, split, side, classes).pixels
    colours = [
        np.asarray(pixels[first : first + _READ_TOGETHER]).mean(axis=(1, 2))
        for first in range(0, len(ids), _READ_TOGETHER)
    ]
    width, height = (np.log2(chosen[name].to_numpy(float)) for name in ("width", "height"))
    files = np.column_stack([width, height, width - height, np.concatenate(colours)])
    return Facts(
        _labels(rows, classes), _text(rows["source"]), _text(rows["scale"]), sampled, files
    )


def _labels(rows: pd.DataFrame, classes: Sequence[str]) -> Array:
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers[name] for name in rows[column(classes)]], np.int64)


def _text(values: pd.Series[str]) -> Array:
    return np.asarray(values.astype("string").fillna(""), object)
