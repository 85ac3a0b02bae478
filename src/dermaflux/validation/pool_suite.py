"""The Great Expectations suite `synthetic`: what the pool of synthetic images must satisfy.

Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dermaflux.core import table
from dermaflux.core.vocabulary import CLASSES
from dermaflux.validation.checks import (
    Check,
    among,
    between,
    columns,
    mean_between,
    present,
    unique,
)

if TYPE_CHECKING:
    import pandas as pd

RELEASED = (
    *("image_id", "label", "source", "licence", "split", "sha256", "generator", "weights"),
    *("width", "height", "sampler_settings"),
)
"""Columns that every row of a pool of released images fills."""
PROVENANCE = (*RELEASED, "prompt", "seed", "batch")
"""Columns that every row of a sampled pool fills, beside those of its sampler's settings."""
_SINGLE_PRECISION = 1e-4  # guidance is stored in 32 bits


def check(frame: pd.DataFrame, images: int, scale: int, sampler: Mapping[str, float] | None) -> int:
    """Check the metadata of a pool; see `checks` for the arguments. Returns how many only warn.

    Raises `InputError` naming the first failed check and example rows; loads Great Expectations.
    """
    from dermaflux.validation import validate

    return validate.check("synthetic", with_derived_columns(frame), checks(images, scale, sampler))


def with_derived_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Metadata of the shards with `malignant` (0 or 1) and `side` (pixels, null if not square)."""
    frame = frame.copy(deep=False)
    frame["malignant"] = (frame["label"] == "malignant").astype("int8")
    frame["side"] = frame["width"].where(frame["width"] == frame["height"])
    return frame


def checks(images: int, scale: int, sampler: Mapping[str, float] | None) -> list[Check]:
    """Checks of a pool of `images` images at `scale` pixels.

    `sampler` maps columns to the one value that all rows have, such as steps and guidance; None
    stands for released images, whose prompts, seeds and settings are unknown.
    """
    if sampler is None:
        return [*_every_pool(images, scale), *present(RELEASED)]
    return [
        *_every_pool(images, scale),
        *present((*PROVENANCE, *sampler, "side")),
        unique("unique seeds", "seed"),
        among("side", "side", (scale,), f"every image is {scale} pixels square"),
        *(
            between(
                column,
                column,
                value - _SINGLE_PRECISION,
                value + _SINGLE_PRECISION,
                f"every image was sampled with {column} {value:g}",
            )
            for column, value in sampler.items()
        ),
    ]


def _every_pool(images: int, scale: int) -> list[Check]:
    """Checks of sampled and of released pools."""
    slack = 0.5 / images  # one class may have one image more
    return [
        columns((*table.METADATA, "malignant", "side")),
        Check(
            "pool size",
            f"the pool holds {images} images",
            "ExpectTableRowCountToEqual",
            {"value": images},
        ),
        unique("unique ids", "image_id"),
        unique("unique images", "sha256"),
        among("label vocabulary", "label", CLASSES),
        among("split vocabulary", "split", ("train",)),
        among("scale consistency", "scale", (scale,)),
        Check(
            "one generator",
            "all images come from the same weights",
            "ExpectColumnUniqueValueCountToBeBetween",
            {"column": "weights", "min_value": 1, "max_value": 1},
        ),
        mean_between(
            "label balance",
            "malignant",
            0.5 - slack,
            0.5 + slack,
            "the classes are equally large",
            {"split": "train"},
        ),
    ]
