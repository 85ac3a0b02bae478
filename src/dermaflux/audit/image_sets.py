"""Which images the stage `audit` looks at: the pool, and three kinds of real ones.

Reads table folders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from dermaflux.audit.fidelity.comparison import GROUPS, MINIMUM
from dermaflux.core import table
from dermaflux.core.hashing import rank
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError

_COLUMNS = ("image_id", "sha256", "label", "diagnosis", *GROUPS)
_TRAINING_COLUMNS = (*_COLUMNS, "scale", "duplicate_group")
_POOL_COLUMNS = (*_COLUMNS, "prompt", "scale")
HELD_OUT = 2000
"""Validation images at most: where none of so many is flagged, the interval ends at 0.18 %."""


class ImageSet(NamedTuple):
    """Images of a table folder, in the order of `rows`."""

    folder: Path
    rows: pd.DataFrame
    """Columns image_id and sha256, and what their use needs."""
    split: str | None
    """None for several."""


@dataclass(frozen=True)
class AuditedImages:
    """What is audited, and what it is compared with, each ordered by image_id."""

    pool: ImageSet
    """Every synthetic image; the classes are those that were asked for."""
    training: ImageSet
    """Of every split that trained the generator."""
    held_out: ImageSet
    """At most `HELD_OUT` of the validation split; none where that trained the generator."""
    test: ImageSet
    """Decide no rejection: a second reference. None where the corpus has no such split."""
    validation_images: int
    """Of which `held_out` is a sample."""


def read(corpus: Path, synthetic: Path, trained: Sequence[str] = ("train",)) -> AuditedImages:
    """Raises `InputError` for a class with too few training images."""
    validation = _real(corpus, ["validation"] if "validation" not in trained else [])
    test = ["test"] if any(corpus.glob("test-*.parquet")) else []
    pool = table.metadata(synthetic, _POOL_COLUMNS, "train").sort_values("image_id")
    return AuditedImages(
        ImageSet(synthetic, pool.reset_index(drop=True), "train"),
        ImageSet(
            corpus,
            _real(corpus, trained, _TRAINING_COLUMNS),
            trained[0] if len(trained) == 1 else None,
        ),
        ImageSet(corpus, sample("held out", validation, HELD_OUT), "validation"),
        ImageSet(corpus, _real(corpus, test), "test"),
        len(validation),
    )


def _real(folder: Path, splits: Sequence[str], columns: Sequence[str] = _COLUMNS) -> pd.DataFrame:
    """Columns of the benign and malignant images of some splits."""
    parts = [table.metadata(folder, columns, split) for split in splits]
    rows = pd.concat(parts) if parts else pd.DataFrame({name: [] for name in columns}, dtype=object)
    if "train" in splits:
        check_classes(rows["label"], folder)
    rows = rows[rows["label"].isin(CLASSES)]
    return rows.sort_values("image_id").reset_index(drop=True)


def check_classes(labels: pd.Series[str], folder: Path) -> None:
    """Raise `InputError` when a class of the training split has too few images to compare with."""
    for name in CLASSES:
        count = int((labels == name).sum())
        if count < MINIMUM:
            raise InputError(
                f"{folder} contains {count} {name} images in split train but the audit needs "
                f"{MINIMUM}; add images of that class"
            )


def sample(purpose: str, rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most so many rows, chosen by the hash of their image_id and ordered by it."""
    order = sorted(rows["image_id"], key=lambda image_id: rank(purpose, image_id))
    chosen = rows[rows["image_id"].isin(order[:most])]
    return chosen.sort_values("image_id").reset_index(drop=True)
