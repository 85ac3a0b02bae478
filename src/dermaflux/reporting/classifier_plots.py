"""Plots of the classifiers as data URIs: AUC, effects, ROC, reliability and decision curves.

Colours tell arms apart; the lines of the mixture and the real arm are bold, those of controls thin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dermaflux.params.arms import COLOURS, TITLES, colour
from dermaflux.params.arms import title as title_of
from dermaflux.reporting.plots import FAINT, GREY, INK, axes, svg
from dermaflux.reporting.results import HEADLINES

if TYPE_CHECKING:
    import pandas as pd

    from dermaflux.reporting.effect_table import Row
    from dermaflux.statistics.evaluations import Cell, Estimate

MAIN = ("real", "mixture")
"""The arms that answer the question; the others are controls."""


def forest(
    cells: Sequence[Cell],
    means: Mapping[tuple[str, str], Estimate],
    metric: str,
    bayes: float | None,
) -> str:
    """AUC of every architecture and arm: a small dot per seed, mean and interval.

    `bayes` is the best AUC that any classifier can reach, where it is known.
    """
    figure, plot = axes(10.4, 1.0 + 0.34 * len(means))
    names = []
    for row, ((architecture, arm), mean) in enumerate(means.items()):
        shade = colour(arm)
        of_seeds = [cell.arms for cell in cells if cell.architecture == architecture]
        seeds = [arms[arm][metric] for arms in of_seeds if arm in arms]
        plot.plot(seeds, [row] * len(seeds), "o", color=shade, alpha=0.35, markersize=5)
        if mean.has_interval:
            plot.plot([mean.low, mean.high], [row, row], color=shade, linewidth=2)
        plot.plot(mean.value, row, "D", color=shade, markersize=6)
        names.append(f"{architecture}, {title_of(arm)}")
    if bayes is not None:
        plot.axvline(bayes, color=INK, linewidth=1, linestyle="--")
        plot.annotate(f"best possible (Bayes) {bayes:.3f} ", (bayes, -0.65), ha="right", fontsize=8)
    plot.set_yticks(range(len(names)), names)
    plot.set_ylim(len(names) - 0.5, -0.9)
    plot.set_xlabel(f"test {HEADLINES[metric]} (dots: seeds; diamond and bar: mean and interval)")
    return svg(figure)


def effects(rows: Sequence[Row], metric: str) -> str:
    """Every effect with its interval, and the line of no effect."""
    figure, plot = axes(10.4, 1.0 + 0.3 * len(rows))
    names = []
    for index, row in enumerate(rows):
        effect, shade = row.effect, COLOURS[row.arm if row.against == "real" else row.against]
        if effect.has_interval:
            plot.plot([effect.low, effect.high], [index, index], color=shade, linewidth=2)
        plot.plot(effect.value, index, "D", color=shade, markersize=6)
        names.append(f"{row.architecture}: {TITLES[row.arm]} − {TITLES[row.against]}")
    plot.axvline(0, color=INK, linewidth=1)
    plot.set_yticks(range(len(names)), names)
    plot.set_ylim(len(names) - 0.5, -0.5)
    name = f"difference in test {HEADLINES[metric]}"
    plot.set_xlabel(f"{name} (diamond and bar: mean over seeds and interval)")
    return svg(figure)


def roc(curves: Mapping[str, Sequence[pd.DataFrame]]) -> str:
    """ROC curves: the mean sensitivity of each arm, and a thin line per seed of real and mixture.

    `curves`: arm -> one table per seed with columns `fpr` and `tpr`, both rising in [0, 1].
    """
    import numpy as np

    figure, plot = axes(4.4, 4.1)
    plot.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--")
    grid = np.linspace(0, 1, 101)
    for arm, tables in curves.items():
        main = arm in MAIN
        for rows in tables if main else ():
            plot.plot(rows["fpr"], rows["tpr"], color=COLOURS[arm], linewidth=0.7, alpha=0.45)
        sensitivities = [np.interp(grid, rows["fpr"], rows["tpr"]) for rows in tables]
        mean = np.concatenate([[0.0], np.mean(sensitivities, axis=0)])
        width, style = (2.2, "-") if main else (1.3, "--")
        fpr = np.concatenate([[0.0], grid])
        plot.plot(fpr, mean, style, color=COLOURS[arm], linewidth=width, label=TITLES[arm])
    plot.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    plot.set(xlabel="1 − specificity", ylabel="sensitivity")
    plot.legend(loc="lower right", fontsize=8)
    return svg(figure)


def reliability(curves: Mapping[str, Sequence[pd.DataFrame]]) -> str:
    """Observed fraction against predicted probability, uncalibrated and calibrated, seeds pooled.

    `curves`: arm -> one table per seed with columns calibrated, low, images, probability, observed.
    The area of a point grows with the number of images in its bin.
    """
    import pandas as pd

    figure, plots = axes(8.4, 4.1, columns=2)
    for plot, calibrated in zip(plots, (False, True), strict=True):
        plot.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--")
        for arm, tables in curves.items():
            rows = pd.concat(tables)
            rows = rows[rows["calibrated"] == calibrated]
            sums = rows[["probability", "observed"]].mul(rows["images"], axis=0)
            pooled = sums.assign(images=rows["images"]).groupby(rows["low"]).sum()
            x, y = (pooled[name] / pooled["images"] for name in ("probability", "observed"))
            sizes = 6 + 90 * pooled["images"] / pooled["images"].max()
            plot.plot(x, y, color=COLOURS[arm], linewidth=1.2, label=TITLES[arm])
            plot.scatter(x, y, s=sizes, color=COLOURS[arm], alpha=0.5, linewidths=0)
        plot.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        plot.set_xlabel("predicted probability")
        plot.set_title("calibrated" if calibrated else "uncalibrated", size=9)
    plots[0].set_ylabel("observed fraction")
    plots[0].legend(loc="upper left", fontsize=8)
    return svg(figure)


def decision(curves: Mapping[str, Sequence[pd.DataFrame]]) -> str:
    """Net benefit per image against the decision threshold, means over seeds.

    `curves`: arm -> one table per seed with columns threshold, model, treat_all, treat_none.
    """
    import numpy as np

    figure, plot = axes(4.4, 4.1)
    reference = next(iter(curves.values()))[0]
    threshold, treat_all = reference["threshold"], reference["treat_all"]
    plot.plot(threshold, treat_all, color=GREY, linewidth=1, label="treat all")
    plot.axhline(0, color=INK, linewidth=1, label="treat none")
    for arm, tables in curves.items():
        mean = np.mean([rows["model"] for rows in tables], axis=0)
        plot.plot(threshold, mean, color=COLOURS[arm], linewidth=1.8, label=TITLES[arm])
    top = max(float(treat_all.max()), 0.05)
    plot.set(xlim=(0, 1), ylim=(-0.25 * top, 1.1 * top))
    plot.set_xlabel("decision threshold (probability of malignancy)")
    plot.set_ylabel("net benefit per image")
    plot.legend(loc="upper right", fontsize=8)
    return svg(figure)
