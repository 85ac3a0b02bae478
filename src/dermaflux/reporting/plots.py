"""Figures of the report as data URIs: montages of images (JPEG) and plots (SVG).

Nothing here depends on time, machine or a random number, so equal inputs give equal bytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux.core import table
from dermaflux.core.arms import COLOURS
from dermaflux.core.hashing import rank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT = "#1d2733", "#c9d2dc"
_TILE = 128
_MIME = {".png": "image/png", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}


def data_uri(content: bytes, suffix: str) -> str:
    """Bytes of an image file as the value of a `src` attribute."""
    return f"data:{_MIME[suffix]};base64,{base64.b64encode(content).decode()}"


def file_uri(path: Path, width: int = 1100) -> str | None:
    """An image file, shrunk to `width` pixels as JPEG when wider; None when there is none."""
    from PIL import Image

    if not path.is_file():
        return None
    content = path.read_bytes()
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    if picture.width <= width and len(content) < 400_000:
        return data_uri(content, path.suffix)
    if picture.width > width:
        height = round(picture.height * width / picture.width)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    return _jpeg(picture)


def _jpeg(picture: Any) -> str:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85, subsampling=0)
    return data_uri(file.getvalue(), ".jpg")


def chosen(image_ids: Sequence[str], count: int) -> list[str]:
    """The `count` ids of smallest SHA-256: a fixed, arbitrary choice that favours nothing."""
    return sorted(image_ids, key=lambda name: rank(name))[:count]


def montage(folder: Path, image_ids: Sequence[str], columns: int) -> str | None:
    """Images of a table folder as one picture of 128-pixel tiles; None without images."""
    from PIL import Image

    if not image_ids:
        return None
    tiles = table.pixels(folder, image_ids, _TILE)
    rows = -(-len(image_ids) // columns)
    picture = Image.new("RGB", (columns * _TILE, rows * _TILE), "white")
    for place, name in enumerate(image_ids):
        picture.paste(
            Image.fromarray(tiles[name]), (place % columns * _TILE, place // columns * _TILE)
        )
    return _jpeg(picture)


def panels(width: float, height: float, rows: int, columns: int) -> tuple[Figure, Any]:
    """A figure of `width` x `height` inches and its plots, an array (rows, columns)."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update(
        {
            "svg.hashsalt": "dermaflux",
            "svg.fonttype": "none",
            "font.family": ["sans-serif"],
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 9,
            "axes.edgecolor": FAINT,
            "axes.labelcolor": INK,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    )
    figure = Figure(figsize=(width, height), layout="constrained")
    plots = figure.subplots(rows, columns, squeeze=False)
    for plot in plots.flat:
        plot.spines[["top", "right"]].set_visible(False)
        plot.grid(color="#eef1f5", linewidth=0.8)
        plot.set_axisbelow(True)
    return figure, plots


def axes(width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    """A figure of `width` x `height` inches and its plot, or an array of `columns` of them."""
    figure, plots = panels(width, height, 1, columns)
    return figure, plots[0] if columns > 1 else plots[0, 0]


def svg_file(figure: Figure) -> bytes:
    """A figure as the content of an SVG file, without a date."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    # Browsers have no DejaVu Sans everywhere; the page's own fonts are a close match.
    return file.getvalue().replace(b"'DejaVu Sans'", b"system-ui, 'DejaVu Sans'")


def svg(figure: Figure) -> str:
    """A figure as the value of a `src` attribute."""
    return data_uri(svg_file(figure), ".svg")


def curve(
    steps: Sequence[float],
    values: Sequence[float],
    name: str,
    held_out: tuple[Sequence[float], Sequence[float]] = ((), ()),
) -> str:
    """A training curve: every value faint, a running mean over about 5 % of them strong.

    `held_out` are steps and values measured on images that are not trained with.
    """
    import numpy as np

    figure, plot = axes(6.4, 2.9)
    plot.plot(steps, values, color=COLOURS["real"], linewidth=0.7, alpha=0.35)
    width = max(1, len(values) // 20)
    smooth = np.convolve(values, np.ones(width) / width, mode="valid")
    smooth_steps = steps[len(values) - len(smooth) :]
    plot.plot(smooth_steps, smooth, color=COLOURS["real"], linewidth=2, label="training")
    if held_out[0]:
        plot.plot(*held_out, color=COLOURS["mixture"], linewidth=2, marker="o", label="held out")
        plot.legend(frameon=False)
    plot.set(xlabel="optimiser step", ylabel=name)
    return svg(figure)
