"""Images of one table with their labels: what training and evaluation compute on.

Reads shards of a table folder through `pixel_cache`. Pixels stay in that cache until a batch is
read: at 224 px an image takes 150 kB, so 400,000 of them take 60 GB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dermaflux.classifiers.data import pixel_cache
from dermaflux.classifiers.data.pixel_cache import CachedPixels
from dermaflux.classifiers.data.subset import column
from dermaflux.core import table
from dermaflux.core.arrays import Array, Pixels
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Images = CachedPixels | Pixels
"""uint8 RGB (N, S, S, 3), in the cache or in memory; an index selects, `np.asarray` reads."""
_HASHED_TOGETHER = 64  # images


@dataclass(frozen=True)
class Samples:
    """N images with their labels, in the order of `image_ids`."""

    image_ids: list[str]
    labels: Array
    """(N,) int64 class numbers; of labels malignancy 1 is malignant."""
    pixels: Images

    def take(self, indices: Array) -> Samples:
        """The images at `indices` (M,); pixels in the cache are not read."""
        ids = [self.image_ids[index] for index in indices]
        return Samples(ids, self.labels[indices], self.pixels[indices])

    def part(self, first: int, last: int) -> Samples:
        """Images number `first` to `last` - 1, not copied."""
        where = slice(first, last)
        return Samples(self.image_ids[where], self.labels[where], self.pixels[where])

    def digest(self) -> str:
        """Hash of ids, labels and pixels: what a result of training depends on."""
        state = hashlib.sha256("\n".join(self.image_ids).encode())
        state.update(self.labels.tobytes())
        for first in range(0, len(self.labels), _HASHED_TOGETHER):
            images = np.asarray(self.pixels[first : first + _HASHED_TOGETHER])
            state.update(np.ascontiguousarray(images).data)
        return state.hexdigest()


def concatenate(first: Samples, second: Samples) -> Samples:
    """Images of two tables, both in the cache, after each other."""
    assert isinstance(first.pixels, CachedPixels)
    assert isinstance(second.pixels, CachedPixels)
    return Samples(
        first.image_ids + second.image_ids,
        np.concatenate([first.labels, second.labels]),
        pixel_cache.concatenate(first.pixels, second.pixels),
    )


def load(
    folder: Path,
    rows: pd.DataFrame,
    wanted: Sequence[str],
    split: str,
    side: int,
    classes: Sequence[str] = CLASSES,
) -> Samples:
    """The `wanted` images of one split at (side, side), in the order of `wanted`.

    `rows` has columns image_id, sha256 and `subset.column(classes)`. Raises `InputError` like
    `pixel_cache.read`.
    """
    chosen = rows.set_index("image_id").loc[list(wanted)]
    sha256 = dict(zip(wanted, chosen["sha256"], strict=True))
    pixels = pixel_cache.read(folder, split, sha256, side)
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers[name] for name in chosen[column(classes)]], np.int64)
    return Samples(list(wanted), labels, pixels)


def load_split(
    folder: Path,
    split: str,
    side: int,
    classes: Sequence[str] = CLASSES,
    wanted: Sequence[str] | None = None,
) -> tuple[pd.DataFrame, Samples]:
    """Every image of a split that has one of the classes, ordered by image_id, with its metadata.

    Of `wanted`, where given, those alone and in its order.
    Raises `InputError` when benign or malignant images are absent, or all but one of the diagnoses:
    no ROC curve exists without them.
    """
    rows = table.metadata(folder, split=split)
    rows = rows[rows[column(classes)].isin(classes)].sort_values("image_id")
    if wanted is not None:
        rows = rows.set_index("image_id").loc[list(wanted)].reset_index()
    rows = rows.reset_index(drop=True)
    absent = [name for name in classes if not (rows[column(classes)] == name).any()]
    if absent and len(classes) - len(absent) < 2:
        raise InputError(
            f"the {split} split holds 0 {absent[0]} images of {len(rows)}; "
            "add a dataset with images of that class"
        )
    return rows, load(folder, rows, list(rows["image_id"]), split, side, classes)
