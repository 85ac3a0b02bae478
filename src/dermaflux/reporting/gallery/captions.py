"""Captions of a few training images, each beside its image and what was measured on it.

Reads corpus/ (training split) and captions/; writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from dermaflux import paths
from dermaflux.core import table
from dermaflux.reporting import images
from dermaflux.reporting.gallery.tiles import SIDE

MEASURED = {
    "asymmetry": ("Asymmetry", 2),
    "border_irregularity": ("Border irregularity", 3),
    "colours": ("Colours", 0),
    "diameter_fraction": ("Diameter", 2),
}
"""Column -> its title and decimals; what each measures is in docs/captions.md."""
_PER_CLASS = 4


@dataclass(frozen=True)
class Example:
    """One training image with its caption."""

    image_id: str
    uri: str
    label: str
    caption: str
    captioner: str
    measured: dict[str, float | None]
    """Column of `MEASURED` -> value; None where nothing could be measured."""
    flags: str
    """Faults that the stage `caption` found in the text; empty where it found none."""


def examples() -> list[Example]:
    """Four captioned training images of each class, chosen by a hash of their names.

    Raises `InputError` when a table is missing or damaged.
    """
    corpus = table.metadata(paths.CORPUS, ["image_id", "label"], "train")
    columns = ["image_id", "caption", "captioner", *MEASURED, "flags"]
    captions = table.metadata(paths.CAPTIONS, columns).set_index("image_id")
    captioned = corpus[corpus["image_id"].isin(captions.index)]
    chosen: list[str] = []
    for _, rows in captioned.groupby("label", sort=True):
        chosen += images.sample(rows["image_id"].to_list(), _PER_CLASS)
    labels = corpus.set_index("image_id")["label"]
    pixels = table.pixels(paths.CORPUS, chosen, SIDE) if chosen else {}
    return [
        Example(
            name,
            images.jpeg_uri(Image.fromarray(pixels[name])),
            str(labels[name]),
            str(captions.at[name, "caption"]),
            str(captions.at[name, "captioner"]),
            {column: _number(captions.loc[name], column) for column in MEASURED},
            _text(captions.loc[name].get("flags")),
        )
        for name in chosen
    ]


def _number(row: Mapping[str, Any], column: str) -> float | None:
    value = row.get(column)
    return None if value is None or value != value else float(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
