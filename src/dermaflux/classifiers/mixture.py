"""Which images a classifier trains on: the controlled real:synthetic mixtures of paper section 3.2.

Pure functions on the metadata of two tables: the corpus split `train` and the synthetic pool. An
image's place in the draw is its rank under a hash of (seed, image_id), never its position in a
file, so a larger sample contains the smaller one and added data moves no other image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import TYPE_CHECKING

from dermaflux.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

CLASSES = ("benign", "malignant")
"""Index 1 is the positive class."""


def draw(rows: pd.DataFrame, count: int, seed: int) -> list[str]:
    """`count` // 2 image_ids of each class, in order of sha256(seed, image_id).

    `rows` has columns image_id and label and at least that many images of each class.
    """
    chosen: list[str] = []
    for name in CLASSES:
        ids = rows.loc[rows["label"] == name, "image_id"]
        chosen += sorted(ids, key=lambda image_id: _rank(seed, image_id))[: count // 2]
    return chosen


def _rank(seed: int, image_id: str) -> bytes:
    return hashlib.sha256(f"{seed}/{image_id}".encode()).digest()


def draw_real(rows: pd.DataFrame, count: int, seed: int) -> list[str]:
    """image_ids of a balanced sample of the corpus split `train`.

    Raises `InputError` when a class has too few images.
    """
    for name in CLASSES:
        available = int((rows["label"] == name).sum())
        if available == 0 and count:
            raise InputError(
                f"the training split holds 0 {name} images but n_real {count} needs {count // 2}; "
                "add a dataset with that class"
            )
        if available < count // 2:
            raise InputError(
                f"n_real {count} needs {count // 2} {name} images but the training split holds "
                f"{available}; lower n_real to {2 * available} or add data"
            )
    return draw(rows, count, seed)


def draw_synthetic(
    rows: pd.DataFrame, rejected: Collection[str], count: int, seed: int
) -> list[str]:
    """image_ids of a balanced sample of the synthetic pool without the images the audit rejected.

    Raises `InputError` when a class of the rest is too small.
    """
    kept = rows[~rows["image_id"].isin(list(rejected))]
    for name in CLASSES:
        pool, left = int((rows["label"] == name).sum()), int((kept["label"] == name).sum())
        if left < count // 2:
            raise InputError(
                f"the mixture needs {count // 2} synthetic {name} images but {left} are left of "
                f"{pool} after the audit rejected {pool - left}; lower ratio or raise "
                "synthesize.images"
            )
    return draw(kept, count, seed)
