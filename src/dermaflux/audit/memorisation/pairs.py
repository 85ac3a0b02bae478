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
    """The first 16 of `pairs`: rejected ones, then by ratio, each beside what it resembles.

    Columns image_id, nearest_id, original_id, ratio, correlation, reason, rejected.
    """
    from PIL import Image, ImageDraw, ImageFont

    order = pairs.sort_values(["rejected", "ratio", "image_id"], ascending=[False, True, True])
    shown = order.head(_COLUMNS * _ROWS)
    copied = shown["reason"].str.startswith("copy")
    shown = shown.assign(beside=shown["original_id"].where(copied, shown["nearest_id"]))
    generated = _pixels(synthetic, shown["image_id"])
    training = _pixels(corpus, shown["beside"])
    width, height = 2 * _SIDE + _GAP, _SIDE + _CAPTION + _GAP
    rows = -(-len(shown) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * width + _GAP, rows * height + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for index, row in enumerate(shown.itertuples()):
        x = _GAP + width * (index % _COLUMNS)
        y = _GAP + height * (index // _COLUMNS)
        sheet.paste(Image.fromarray(generated[str(row.image_id)]), (x, y))
        sheet.paste(Image.fromarray(training[str(row.beside)]), (x + _SIDE, y))
        numbers = f"ratio {row.ratio:.2f}, correlation {row.correlation:.2f}"
        draw.text((x, y + _SIDE), f"{numbers}: {row.reason or 'kept'}", "black", font)
        draw.text((x, y + _SIDE + 14), str(row.beside)[-34:], "dimgray", font)
    sheet.save(path, "PNG")


def _pixels(folder: Path, ids: pd.Series[str]) -> dict[str, Pixels]:
    return dict(table.decoded(folder, set(ids), "train", _SIDE))
