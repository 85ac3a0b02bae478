"""Mean images of both kinds, and what in an image goes with a classifier's score.

`pictures` is pure; `draw` writes one PNG.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dermaflux.core.arrays import Array

if TYPE_CHECKING:
    from dermaflux.audit.faithfulness.separability import Told

_TILE, _GAP, _LINE = 160, 12, 18


class Pictures(NamedTuple):
    """Float (S, S, 3) in grey levels, 0 to 255."""

    real: Array
    """Mean real image."""
    synthetic: Array
    """Mean synthetic image."""
    pattern: Array
    """Change of each pixel per standard deviation of the score, signed."""


def pictures(synthetic: Array, real: Array, told: Told) -> Pictures:
    """Of synthetic images (N, S, S, 3) and real ones (M, S, S, 3) and the scores of both.

    The pattern is the covariance of pixels with the held-out score, either kind weighing the same:
    for a linear classifier it, and not the weights, shows what the classifier looks at (Haufe et
    al. 2014, NeuroImage 87:96, equation 6). It holds for a classifier of any features.
    """
    kinds = ((synthetic, told.ours), (real, told.theirs))
    means = [images.mean(axis=0) for images, _ in kinds]
    middle = (means[0] + means[1]) / 2
    level = (told.ours.mean() + told.theirs.mean()) / 2
    shares = [
        np.tensordot(scores - level, images - middle, axes=1) / len(images)
        for images, scores in kinds
    ]
    spread = float(np.mean([((scores - level) ** 2).mean() for _, scores in kinds]))
    pattern: Array = (shares[0] + shares[1]) / 2 / max(np.sqrt(spread), 1e-9)
    return Pictures(means[1], means[0], pattern)


def draw(rows: Mapping[str, Pictures], path: Path) -> None:
    """A row for each class: mean real image, mean synthetic image, pattern.

    The pattern is drawn about mid-grey and stretched so that its largest change is full black or
    white; how much that is, is written above it.
    """
    from PIL import Image, ImageDraw, ImageFont

    width, height = _GAP + 3 * (_TILE + _GAP), _GAP + len(rows) * (_TILE + _LINE + _GAP)
    sheet = Image.new("RGB", (width, height), "white")
    text, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, (name, found) in enumerate(rows.items()):
        largest = max(float(np.abs(found.pattern).max()), 1e-9)
        tiles = {
            f"{name}: mean real": found.real,
            "mean synthetic": found.synthetic,
            f"looks synthetic, ±{largest:.1f} of 255": 127.5 * (1 + found.pattern / largest),
        }
        y = _GAP + number * (_TILE + _LINE + _GAP)
        for column, (title, pixels) in enumerate(tiles.items()):
            x = _GAP + column * (_TILE + _GAP)
            text.text((x, y), title, "black", font)
            tile = Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))
            sheet.paste(tile.resize((_TILE, _TILE), Image.Resampling.NEAREST), (x, y + _LINE))
    sheet.save(path, "PNG")
