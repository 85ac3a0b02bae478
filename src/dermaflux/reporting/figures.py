"""Figures of the report as data URIs: montages of images (JPEG) and plots (SVG).

Nothing here depends on time, machine or a random number, so equal inputs give equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux import table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dermaflux.reporting.results import Cell, Estimate

COLOURS = {"real": "#2f6db3", "mixture": "#d9772b"}
_INK, _FAINT = "#1d2733", "#c9d2dc"
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
    return sorted(image_ids, key=lambda name: hashlib.sha256(name.encode()).digest())[:count]


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


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update(
        {
            "svg.hashsalt": "dermaflux",
            "svg.fonttype": "none",
            "font.family": ["sans-serif"],
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 9,
            "axes.edgecolor": _FAINT,
            "axes.labelcolor": _INK,
            "text.color": _INK,
            "xtick.color": _INK,
            "ytick.color": _INK,
        }
    )
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eef1f5", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    # Browsers have no DejaVu Sans everywhere; the page's own fonts are a close match.
    text = file.getvalue().replace(b"'DejaVu Sans'", b"system-ui, 'DejaVu Sans'")
    return data_uri(text, ".svg")


def roc(curves: Mapping[str, Sequence[pd.DataFrame]], labels: Mapping[str, str]) -> str:
    """ROC curves: one thin line per seed, one thick line for the mean sensitivity of an arm.

    `curves`: arm -> one table per seed with columns `fpr` and `tpr`, both rising in [0, 1].
    """
    import numpy as np

    figure, axes = _axes(4.4, 4.1)
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1, linestyle="--")
    grid = np.linspace(0, 1, 101)
    for arm, tables in curves.items():
        for rows in tables:
            axes.plot(rows["fpr"], rows["tpr"], color=COLOURS[arm], linewidth=0.7, alpha=0.45)
        heights = [np.interp(grid, rows["fpr"], rows["tpr"]) for rows in tables]
        mean = np.concatenate([[0.0], np.mean(heights, axis=0)])
        axes.plot(
            np.concatenate([[0.0], grid]), mean, color=COLOURS[arm], linewidth=2, label=labels[arm]
        )
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set(xlabel="1 - specificity", ylabel="sensitivity")
    axes.legend(frameon=False, loc="lower right")
    return _svg(figure)


def forest(
    cells: Sequence[Cell],
    means: Mapping[tuple[str, str], Estimate],
    labels: Mapping[str, str],
    bayes: float | None,
) -> str:
    """AUC of every architecture and arm: a small dot per seed, mean and interval over seeds."""
    figure, axes = _axes(10.4, 1.0 + 0.4 * len(means))
    names = []
    for row, ((architecture, arm), found) in enumerate(means.items()):
        colour = COLOURS[arm]
        seeds = [cell.arms[arm]["auc"] for cell in cells if cell.architecture == architecture]
        axes.plot(seeds, [row] * len(seeds), "o", color=colour, alpha=0.35, markersize=5)
        if found.has_interval:
            axes.plot([found.low, found.high], [row, row], color=colour, linewidth=2)
        axes.plot(found.value, row, "D", color=colour, markersize=6)
        names.append(f"{architecture}, {labels[arm]}")
    if bayes is not None:
        axes.axvline(bayes, color=_INK, linewidth=1, linestyle="--")
        axes.annotate(f"best possible (Bayes) {bayes:.3f} ", (bayes, -0.65), ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.9)
    axes.set_xlabel("test AUC (dots: seeds; diamond and bar: mean and interval over seeds)")
    return _svg(figure)


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

    figure, axes = _axes(6.4, 2.9)
    axes.plot(steps, values, color=COLOURS["real"], linewidth=0.7, alpha=0.35)
    width = max(1, len(values) // 20)
    smooth = np.convolve(values, np.ones(width) / width, mode="valid")
    smooth_steps = steps[len(values) - len(smooth) :]
    axes.plot(smooth_steps, smooth, color=COLOURS["real"], linewidth=2, label="training")
    if held_out[0]:
        axes.plot(*held_out, color=COLOURS["mixture"], linewidth=2, marker="o", label="held out")
        axes.legend(frameon=False)
    axes.set(xlabel="optimiser step", ylabel=name)
    return _svg(figure)
