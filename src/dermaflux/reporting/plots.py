"""Plots as SVG: the style they share, and the training curve.

Nothing here depends on time, machine or a random number, so equal inputs give equal bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dermaflux.params.arms import COLOURS
from dermaflux.reporting.images import data_uri

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT, GREY = "#1d2733", "#c9d2dc", "#7d8894"


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
            "legend.edgecolor": "none",
            "legend.framealpha": 0.85,
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
    # Not every browser has DejaVu Sans; the page's own fonts are a close match.
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
    """A training curve: every value faint, a running mean over about 5 % of them bold.

    `held_out` are steps and values measured on images outside the training set.
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
        plot.legend()
    plot.set(xlabel="optimiser step", ylabel=name)
    return svg(figure)
