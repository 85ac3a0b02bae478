"""The Great Expectations suite `synthetic`: what the pool of synthetic images must satisfy.

Reads and writes nothing.
"""

from __future__ import annotations

import math
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

    from dermaflux.params import Synthesize

RELEASED = (
    *("image_id", "label", "source", "licence", "split", "sha256", "generator", "weights"),
    *("width", "height", "sampler_settings"),
)
"""Columns that every row of a pool of released images fills."""
PROVENANCE = (*RELEASED, "prompt", "seed", "batch")
"""Columns that every row of a sampled pool fills, beside those of its sampler's settings."""
_SINGLE_PRECISION = 1e-4  # guidance is stored in 32 bits


def check(frame: pd.DataFrame, section: Synthesize, sampler: Mapping[str, float] | None) -> int:
    """Check the metadata of a pool; see `checks` for the arguments. Returns how many only warn.

    Raises `InputError` naming the first failed check and example rows; loads Great Expectations.
    """
    from dermaflux.validation import validate

    return validate.check("synthetic", with_derived_columns(frame), checks(section, sampler))


def with_derived_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Metadata of the shards with `malignant` (0 or 1) and `side` (pixels, null if not square)."""
    frame = frame.copy(deep=False)
    frame["malignant"] = (frame["label"] == "malignant").astype("int8")
    frame["side"] = frame["width"].where(frame["width"] == frame["height"])
    return frame


def checks(section: Synthesize, sampler: Mapping[str, float] | None) -> list[Check]:
    """Checks of a pool that `section` asks for.

    `sampler` maps columns to the one value that all rows have, such as steps and guidance; None
    stands for released images, whose prompts, seeds and settings are unknown.
    """
    scale = section.scale
    if sampler is None:
        return [*_every_pool(section), *_classes(section), *present(RELEASED)]
    return [
        *_every_pool(section),
        *_classes(section),
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


def _classes(section: Synthesize) -> list[Check]:
    """Checks of what the images were asked to show."""
    shares = section.proportions
    if section.conditions == "none":
        return [among("label vocabulary", "label", ("indeterminate",))]
    vocabulary = among("label vocabulary", "label", CLASSES)
    if section.conditions == "diagnosis":
        asked: list[Check] = []
        if not isinstance(shares, str):
            wanted = {k: section.images * v / sum(shares.values()) for k, v in shares.items()}
            asked = [among("diagnosis vocabulary", "diagnosis", tuple(shares))]
            asked += [_number(name, images) for name, images in wanted.items()]
        return [vocabulary, *present(("diagnosis",)), *asked]
    if shares == "natural":  # those of the corpus, which this gate does not read
        return [vocabulary]
    share = 0.5 if isinstance(shares, str) else shares.get("malignant", 0) / sum(shares.values())
    slack = 0.75 / section.images  # one class may have one image more
    return [
        vocabulary,
        mean_between(
            "label balance",
            "malignant",
            share - slack,
            share + slack,
            f"{100 * share:.4g} % of the images are malignant",
            {"split": "train"},
        ),
    ]


def _number(diagnosis: str, wanted: float) -> Check:
    """As many images of a diagnosis as its share asks for, up to one that `pool.plan` may stray."""
    low, high = max(math.floor(wanted) - 1, 0), math.ceil(wanted) + 1
    return Check(
        f"number of {diagnosis} images",
        f"between {low:,} and {high:,} images show {diagnosis}",
        "ExpectTableRowCountToBeBetween",
        {"min_value": low, "max_value": high},
        {"diagnosis": diagnosis},
    )


def _every_pool(section: Synthesize) -> list[Check]:
    """Checks of sampled and of released pools."""
    images, scale = section.images, section.scale
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
        among("split vocabulary", "split", ("train",)),
        among("scale consistency", "scale", (scale,)),
        Check(
            "one generator",
            "all images come from the same weights",
            "ExpectColumnUniqueValueCountToBeBetween",
            {"column": "weights", "min_value": 1, "max_value": 1},
        ),
    ]
