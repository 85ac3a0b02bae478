"""Images of one table in memory as uint8: what training and evaluation compute on.

Reads shards of a table folder through `pixel_cache`. At 224 px an image takes 150 kB, so the
largest training set of the paper (27,500 images) takes 4 GB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaflux.classifiers.data import pixel_cache
from dermaflux.classifiers.data.subset import column
from dermaflux.core import table
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Samples:
    """N images with their labels, in the order of `image_ids`."""

    image_ids: list[str]
    labels: np.ndarray[Any, Any]
    """(N,) int64 class numbers; of labels malignancy 1 is malignant."""
    pixels: np.ndarray[Any, Any]
    """(N, S, S, 3) uint8 RGB."""

    def __add__(self, other: Samples) -> Samples:
        return Samples(
            self.image_ids + other.image_ids,
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.pixels, other.pixels]),
        )

    def part(self, first: int, last: int) -> Samples:
        """Images number `first` to `last` - 1, not copied."""
        where = slice(first, last)
        return Samples(self.image_ids[where], self.labels[where], self.pixels[where])

    def digest(self) -> str:
        """Hash of ids, labels and pixels: what a result of training depends on."""
        state = hashlib.sha256("\n".join(self.image_ids).encode())
        state.update(self.labels.tobytes())
        state.update(np.ascontiguousarray(self.pixels).data)
        return state.hexdigest()


def load(
    folder: Path,
    rows: pd.DataFrame,
    wanted: Sequence[str],
    split: str,
    side: int,
    classes: Sequence[str] = CLASSES,
) -> Samples:
    """The `wanted` images of one split at (side, side), in the order of `wanted`.

    `rows` has columns image_id, sha256 and `mixture.column(classes)`. Raises `InputError` like
    `pixel_cache.read`.
    """
    chosen = rows.set_index("image_id").loc[list(wanted)]
    sha256 = dict(zip(wanted, chosen["sha256"], strict=True))
    pixels = pixel_cache.read(folder, split, sha256, side)
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers[name] for name in chosen[column(classes)]], np.int64)
    return Samples(list(wanted), labels, pixels)


def load_split(
    folder: Path, split: str, side: int, classes: Sequence[str] = CLASSES
) -> tuple[pd.DataFrame, Samples]:
    """Every image of a split that has one of the classes, ordered by image_id, with its metadata.

    Raises `InputError` when benign or malignant images are absent, or all but one of the diagnoses,
    for then no ROC curve exists.
    """
    rows = table.metadata(folder, split=split)
    held = rows[column(classes)]
    rows = rows[held.isin(classes)].sort_values("image_id").reset_index(drop=True)
    absent = [name for name in classes if not (rows[column(classes)] == name).any()]
    if absent and len(classes) - len(absent) < 2:
        raise InputError(
            f"the {split} split holds 0 {absent[0]} images of {len(rows)}; "
            "add a dataset whose images fill that class"
        )
    return rows, load(folder, rows, list(rows["image_id"]), split, side, classes)
