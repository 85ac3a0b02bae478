"""Real and synthetic images as tiles that the page filters by class, tone, scale and verdict.

Reads corpus/ (training split), synthetic/ and what the audit said of it; writes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.vocabulary import CLASSES
from dermaflux.reporting import images

if TYPE_CHECKING:
    import pandas as pd

SIDE = 112
"""Pixels of a tile."""
UNKNOWN = "not known"
_COLUMNS = ["image_id", "label", "scale", "skin_tone"]


@dataclass(frozen=True)
class Tile:
    """One image, and what the page filters it by."""

    image_id: str
    uri: str
    kind: str
    """`real` or `synthetic`."""
    label: str
    tone: str
    scale: str
    """In pixels."""
    verdict: str
    """Of the audit: `kept`, `rejected`, or `not audited`; real images are `real`."""

    @property
    def alt(self) -> str:
        """The image in words."""
        tone = "" if self.tone == UNKNOWN else f", skin tone {self.tone}"
        verdict = "" if self.kind == "real" else f", {self.verdict}"
        return f"{self.kind} {self.label} lesion, {self.scale} px{tone}{verdict}"


@dataclass(frozen=True)
class Gallery:
    """Tiles by class and kind, and what they can be filtered by."""

    tiles: dict[str, dict[str, list[Tile]]]
    """Class -> kind -> tiles; kinds without an image of the class have none."""
    filters: dict[str, list[str]]
    """`label`, `tone`, `scale` and `verdict` -> the values that occur."""
    per_class: int
    """The most images of a class and kind."""


def gallery(count: int, rejected: Collection[str] | None) -> Gallery:
    """Up to `count` images of each class and kind, chosen by a hash of their names.

    Of the synthetic images that the audit `rejected` up to as many again are shown. None: there
    was no audit. Raises `InputError` when a table is missing or damaged.
    """
    real = table.metadata(paths.CORPUS, _COLUMNS, "train").assign(verdict="real")
    tiles = _tiles(paths.CORPUS, real, "real", count)
    if synthetic_exists():
        pool = table.metadata(paths.SYNTHETIC, _COLUMNS)
        refused = pool["image_id"].isin(list(rejected or ()))
        pool["verdict"] = "not audited" if rejected is None else "kept"
        pool.loc[refused, "verdict"] = "rejected"
        tiles += _tiles(paths.SYNTHETIC, pool, "synthetic", count)
    by_class: dict[str, dict[str, list[Tile]]] = {}
    for label in dict.fromkeys([*CLASSES, *sorted({tile.label for tile in tiles})]):
        own = [tile for tile in tiles if tile.label == label]
        by_class[label] = {
            kind: [tile for tile in own if tile.kind == kind] for kind in ("real", "synthetic")
        }
    return Gallery(by_class, _filters(tiles), count)


def synthetic_exists() -> bool:
    """Whether there is a pool with at least one shard."""
    return paths.SYNTHETIC.is_dir() and any(paths.SYNTHETIC.glob("*.parquet"))


def _tiles(folder: Path, rows: pd.DataFrame, kind: str, count: int) -> list[Tile]:
    chosen: list[str] = []
    for _, own in rows.groupby(["label", "verdict"], sort=True):
        chosen += images.sample(own["image_id"].to_list(), count)
    facts = rows.set_index("image_id")
    pixels = table.pixels(folder, chosen, SIDE) if chosen else {}
    return [
        Tile(
            name,
            images.jpeg_uri(Image.fromarray(pixels[name])),
            kind,
            str(facts.at[name, "label"]),
            _known(facts.at[name, "skin_tone"]),
            str(facts.at[name, "scale"]),
            str(facts.at[name, "verdict"]),
        )
        for name in chosen
    ]


def _known(value: object) -> str:
    return value if isinstance(value, str) and value else UNKNOWN


def _filters(tiles: Collection[Tile]) -> dict[str, list[str]]:
    found: Mapping[str, set[str]] = {
        "label": {tile.label for tile in tiles},
        "tone": {tile.tone for tile in tiles},
        "scale": {tile.scale for tile in tiles},
        "verdict": {tile.verdict for tile in tiles},
    }
    return {
        name: sorted(values, key=int) if name == "scale" else sorted(values)
        for name, values in found.items()
    }
