"""A contact sheet of the synthetic images closest to a training image, each beside that image.

Reads two table folders; writes one PNG.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dermaflux.core import table

if TYPE_CHECKING:
    import pandas as pd

    from dermaflux.core.arrays import Pixels

_SIDE, _CAPTION, _GAP = 112, 30, 12
_COLUMNS, _ROWS = 4, 4


def draw_pairs(pairs: pd.DataFrame, corpus: Path, synthetic: Path, path: Path) -> None:
    """The 16 smallest ratios of `pairs` (image_id, nearest_id, ratio, rejected), ascending."""
    from PIL import Image, ImageDraw, ImageFont

    shown = pairs.sort_values(["ratio", "image_id"]).head(_COLUMNS * _ROWS)
    generated = _pixels(synthetic, shown["image_id"])
    training = _pixels(corpus, shown["nearest_id"])
    width, height = 2 * _SIDE + _GAP, _SIDE + _CAPTION + _GAP
    rows = -(-len(shown) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * width + _GAP, rows * height + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for index, row in enumerate(shown.itertuples()):
        x = _GAP + width * (index % _COLUMNS)
        y = _GAP + height * (index // _COLUMNS)
        sheet.paste(Image.fromarray(generated[str(row.image_id)]), (x, y))
        sheet.paste(Image.fromarray(training[str(row.nearest_id)]), (x + _SIDE, y))
        decision = "rejected" if row.rejected else "kept"
        draw.text((x, y + _SIDE), f"ratio {row.ratio:.2f}, {decision}", "black", font)
        draw.text((x, y + _SIDE + 14), str(row.nearest_id)[-34:], "dimgray", font)
    sheet.save(path, "PNG")


def _pixels(folder: Path, ids: pd.Series[str]) -> dict[str, Pixels]:
    return dict(table.decoded(folder, set(ids), "train", _SIDE))
