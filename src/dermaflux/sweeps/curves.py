"""Pictures of a grid's results as SVG: curves over the ratio with bands, and ROC curves.

Equal inputs give equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dermaflux.reporting import plots

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

_COLOURS = ("#2f6db3", "#d9772b", "#1c7c4a", "#8a4fa3", "#b3362d", "#5b6878")
_CONTROLS = {"repeated": ", repeated", "augmented": ", repeated and augmented"}
"""Arms that show as many images as the mixture, and what their lines are called."""


def curves(
    rows: Sequence[Mapping[str, Any]], shown: Sequence[str], titles: Mapping[str, str]
) -> bytes | None:
    """Figures over the ratio (or the share of real images), one line per number of real images.

    Bands are the intervals over seeds; controls that grow with the ratio are dashed, without a
    band. Training on synthetic images alone stands at the right end. None when nothing varies.
    """
    shares = any(row["real_fraction"] for row in rows)
    drawn = ("real", "mixture") if shares else ("real", "mixture", *_CONTROLS)
    rows = [row for row in rows if row["arm"] in drawn]
    names = list(dict.fromkeys(row["architecture"] for row in rows))
    if not shown or len({_place(row, shares) for row in rows}) < 2:
        return None
    down, across = len(shown), len(names)
    figure, axes = plots.panels(1 + 4.2 * across, 0.4 + 3.1 * down, down, across)
    for column, name in enumerate(names):
        own = [row for row in rows if row["architecture"] == name]
        for line, metric in zip(axes[:, column], shown, strict=True):
            _panel(line, own, metric, shares)
            line.set(title=name, ylabel=titles[metric])
            line.set_xlabel(
                "share of the real images" if shares else "synthetic images per real image"
            )
    handles, labels = axes[0, -1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return plots.svg_file(figure)


def _place(row: Mapping[str, Any], shares: bool) -> float:
    return float(row["real_fraction"] if shares else row["ratio"])


def _panel(axes: Axes, rows: Sequence[Mapping[str, Any]], metric: str, shares: bool) -> None:
    lines: dict[str, dict[float, Any]] = {}
    alone: dict[str, Any] = {}
    for row in rows:
        if metric not in row:
            continue
        if shares:
            label = "real + synthetic" if row["arm"] == "mixture" else "real"
        else:
            label = f"{row['n_real']:,} real" + _CONTROLS.get(row["arm"], "")
        if math.isinf(row["ratio"]) and not shares:
            alone[f"{row['n_synthetic']:,} synthetic alone"] = row[metric]
        else:
            lines.setdefault(label, {})[_place(row, shares)] = row[metric]
    for number, (label, points) in enumerate(sorted(lines.items(), key=_natural)):
        colour = _COLOURS[number % len(_COLOURS)]
        places = sorted(points)
        values = [points[place].value for place in places]
        control = label.endswith(tuple(_CONTROLS.values()))
        style = "--" if control else "o-"
        axes.plot(places, values, style, color=colour, label=label, markersize=4)
        if not control and all(points[place].has_interval for place in places):
            low = [points[place].low for place in places]
            high = [points[place].high for place in places]
            axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
    if shares:
        axes.set_xscale("log")
    right = max((place for points in lines.values() for place in points), default=1.0) + 0.4
    for number, (label, found) in enumerate(sorted(alone.items())):
        low, high = (found.value - found.low, found.high - found.value)
        spread = [[max(0.0, low)], [max(0.0, high)]] if found.has_interval else None
        axes.errorbar(
            [right + 0.2 * number], [found.value], yerr=spread, fmt="D", label=label, markersize=4,
            color=_COLOURS[(4 + number) % len(_COLOURS)],
        )  # fmt: skip


def _natural(line: tuple[str, Any]) -> tuple[int, str]:
    digits = "".join(letter for letter in line[0] if letter.isdigit())
    return int(digits or 0), line[0]


def roc(labels: np.ndarray[Any, Any], scores: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """ROC curves of several classifiers on the same images; the first is drawn strongest."""
    from dermaflux.metrics import metrics

    figure, plot = plots.axes(5.2, 3.5)
    plot.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for number, (name, values) in enumerate(scores.items()):
        label = f"{name}, AUC {metrics.auc(labels, values):.3f}"
        plot.plot(
            *metrics.roc_points(labels, values).T,
            color=_COLOURS[number % len(_COLOURS)],
            linewidth=2.2 if number == 0 else 1.2,
            label=label,
        )
    plot.set(xlabel="1 - specificity", ylabel="sensitivity", aspect="equal")
    plot.legend(fontsize=7, frameon=False, loc="lower right")
    return plots.svg_file(figure)
