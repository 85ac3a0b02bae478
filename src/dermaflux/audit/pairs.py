"""A picture of the synthetic images closest to a training image, each beside that image.

Reads two table folders; writes one PNG.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux.core import table

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_SIDE, _CAPTION, _GAP = 112, 30, 12
_COLUMNS, _ROWS = 4, 4


def draw_pairs(pairs: pd.DataFrame, corpus: Path, synthetic: Path, path: Path) -> None:
    """The 16 least ratios of `pairs` (image_id, nearest_id, ratio, rejected), ascending."""
    from PIL import Image, ImageDraw, ImageFont

    shown = pairs.sort_values(["ratio", "image_id"]).head(_COLUMNS * _ROWS)
    ours = _pictures(synthetic, shown["image_id"])
    theirs = _pictures(corpus, shown["nearest_id"])
    width, height = 2 * _SIDE + _GAP, _SIDE + _CAPTION + _GAP
    rows = -(-len(shown) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * width + _GAP, rows * height + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for place, row in enumerate(shown.itertuples()):
        x = _GAP + width * (place % _COLUMNS)
        y = _GAP + height * (place // _COLUMNS)
        sheet.paste(Image.fromarray(ours[str(row.image_id)]), (x, y))
        sheet.paste(Image.fromarray(theirs[str(row.nearest_id)]), (x + _SIDE, y))
        verdict = "rejected" if row.rejected else "kept"
        draw.text((x, y + _SIDE), f"ratio {row.ratio:.2f}, {verdict}", "black", font)
        draw.text((x, y + _SIDE + 14), str(row.nearest_id)[-34:], "dimgray", font)
    sheet.save(path, "PNG")


def _pictures(folder: Path, ids: pd.Series[str]) -> dict[str, np.ndarray[Any, Any]]:
    return dict(table.decoded(folder, set(ids), "train", _SIDE))
