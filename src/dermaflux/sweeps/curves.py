"""Plots of a grid's results as SVG: metrics over the ratio with bands, and ROC curves.

Equal inputs give equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dermaflux.params import REPEATING
from dermaflux.params.arms import COLOURS, TITLES
from dermaflux.reporting import plots

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

_STYLES = {"real": "o-", "mixture": "o-", "repeated": "--", "augmented": ":"}


def over_ratio(
    rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], titles: Mapping[str, str]
) -> bytes | None:
    """Metrics over the ratio (or the fraction of real images), one line per number of real images.

    Bands are the intervals over seeds; controls that grow with the ratio are dashed or dotted,
    without a band. Training on synthetic images alone is at the right end. Returns None when
    nothing varies.
    """
    by_fraction = any(row["real_fraction"] for row in rows)
    arms = ("real", "mixture") if by_fraction else ("real", "mixture", *REPEATING)
    rows = [row for row in rows if row["arm"] in arms]
    architectures = list(dict.fromkeys(row["architecture"] for row in rows))
    if not metrics or len({_x(row, by_fraction) for row in rows}) < 2:
        return None
    down, across = len(metrics), len(architectures)
    figure, panels = plots.panels(1 + 4.2 * across, 0.4 + 3.1 * down, down, across)
    for column, architecture in enumerate(architectures):
        shown = [row for row in rows if row["architecture"] == architecture]
        for axes, metric in zip(panels[:, column], metrics, strict=True):
            _panel(axes, shown, metric, by_fraction)
            axes.set(title=architecture, ylabel=titles[metric])
            axes.set_xlabel(
                "fraction of the real images" if by_fraction else "synthetic images per real image"
            )
    handles, labels = panels[0, -1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return plots.svg_file(figure)


def _x(row: Mapping[str, Any], by_fraction: bool) -> float:
    return float(row["real_fraction"] if by_fraction else row["ratio"])


def _label(row: Mapping[str, Any], by_fraction: bool, generators: int) -> str:
    if by_fraction:
        # A generator of its own has a line of its own.
        named = f", {row['generator']}" if row["generator"] and generators > 1 else ""
        return f"{TITLES[row['arm']]}{named}"
    control = TITLES[row["arm"]].removeprefix("real") if row["arm"] in REPEATING else ""
    return f"{row['n_real']:,} real{control}"


def _panel(axes: Axes, rows: Sequence[Mapping[str, Any]], metric: str, by_fraction: bool) -> None:
    lines: dict[str, dict[float, Any]] = {}
    synthetic_alone: dict[str, Any] = {}
    arms: dict[str, str] = {}
    counts: dict[str, Any] = {}
    generators = list(dict.fromkeys(row["generator"] for row in rows if row["generator"]))
    shades: dict[str, str] = {}
    for row in rows:
        if metric not in row:
            continue
        if math.isinf(row["ratio"]) and not by_fraction:
            synthetic_alone[f"{row['n_synthetic']:,} synthetic alone"] = row[metric]
        else:
            label = _label(row, by_fraction, len(generators))
            if row["generator"] in generators[1:]:
                shades[label] = f"C{generators.index(row['generator'])}"
            lines.setdefault(label, {})[_x(row, by_fraction)] = row[metric]
            arms[label], counts[label] = row["arm"], row["n_real"]
    # Over the ratio, colours tell numbers of real images apart and line styles the arms.
    distinct = sorted({count for count in counts.values() if count is not None})
    palette = {count: f"C{number}" for number, count in enumerate(distinct)}
    for label, points in sorted(lines.items(), key=_by_count):
        arm, x = arms[label], sorted(points)
        colour = shades.get(label, COLOURS[arm]) if by_fraction else palette[counts[label]]
        values = [points[at].value for at in x]
        axes.plot(x, values, _STYLES[arm], color=colour, label=label, markersize=4)
        if arm not in REPEATING and all(points[at].has_interval for at in x):
            low, high = [points[at].low for at in x], [points[at].high for at in x]
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    if by_fraction:
        axes.set_xscale("log")
    right = max((x for points in lines.values() for x in points), default=1.0) + 0.4
    for number, (label, mean) in enumerate(sorted(synthetic_alone.items(), key=_by_count)):
        low, high = (mean.value - mean.low, mean.high - mean.value)
        spread = [[max(0.0, low)], [max(0.0, high)]] if mean.has_interval else None
        axes.errorbar(
            [right + 0.2 * number], [mean.value], yerr=spread, fmt="D", label=label, markersize=4,
            color=f"C{len(palette) + number}",
        )  # fmt: skip


def _by_count(item: tuple[str, Any]) -> tuple[int, str]:
    """Sort key of a labelled line: the number in its label, then the label."""
    digits = "".join(letter for letter in item[0] if letter.isdigit())
    return int(digits or 0), item[0]


def roc(labels: np.ndarray[Any, Any], scores: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """ROC curves of several classifiers on the same images; the first is the boldest."""
    from sklearn.metrics import roc_curve

    from dermaflux.metrics import binary

    figure, axes = plots.axes(5.2, 3.5)
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for number, (name, values) in enumerate(scores.items()):
        false_positive, true_positive, _ = roc_curve(labels, values)
        axes.plot(
            false_positive,
            true_positive,
            color=f"C{number}",
            linewidth=2.2 if number == 0 else 1.2,
            label=f"{name}, AUC {binary.auc(labels, values):.3f}",
        )
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", aspect="equal")
    axes.legend(fontsize=7, loc="lower right")
    return plots.svg_file(figure)
