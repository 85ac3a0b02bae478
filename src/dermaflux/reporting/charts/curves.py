"""Charts with a curve: what an image is worth, ROC, reliability, decision curves, training loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dermaflux.params.arms import COLOURS, TITLES
from dermaflux.reporting.charts.spec import Chart, Trace, axis, line, reference, short, shorts, text
from dermaflux.reporting.classifier_plots import MAIN
from dermaflux.statistics.evaluations import Estimate
from dermaflux.statistics.exchange_rate import ExchangeRate

if TYPE_CHECKING:
    import pandas as pd

_MOST_POINTS = 500
"""Of a training curve; every so many steps one is drawn."""
Tables = Mapping[str, Sequence["pd.DataFrame"]]
"""Arm -> one table per seed."""


def worth(
    arms: Mapping[str, Estimate], sizes: Mapping[str, int], rate: ExchangeRate | None, metric: str
) -> Chart | None:
    """AUC over the number of real images, and where the mixture lies on that curve.

    `arms` are those of one architecture, `sizes` those of real images alone. None with fewer than
    two sizes, or without the mixture.
    """
    points = sorted((sizes[arm], arms[arm]) for arm in sizes if arm in arms)
    if len(points) < 2 or "mixture" not in arms:
        return None
    least, most = points[0][0], points[-1][0]
    mixture = arms["mixture"]
    limits = f" ({mixture.low:.3f} to {mixture.high:.3f})" if mixture.has_interval else ""
    hover = f"real + synthetic<br><b>{mixture.value:.3f}</b>{limits}<extra></extra>"
    level, shade = [mixture.value] * 2, COLOURS["mixture"]
    traces = [
        *([] if rate is None else [_fitted(rate, least, most)]),
        _measured(points),
        line([least, most], level, "with synthetic images", shade, hovertemplate=hover),
    ]
    if rate is not None and rate.told and not rate.equivalent.bound:
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "as good as",
                "x": [short(rate.equivalent.value)],
                "y": [short(mixture.value)],
                "marker": {"color": shade, "size": 14, "symbol": "star"},
                "hovertemplate": "as good as <b>%{x:,.0f}</b> real images<extra></extra>",
            }
        )
    layout = {
        "xaxis": axis(
            "real images (logarithmic)",
            type="log",
            tickvals=[size for size, _ in points],
            ticktext=[f"{size:,}" for size, _ in points],
        ),
        "yaxis": axis(f"test {metric}"),
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    }
    alt = f"Test {metric} over the number of real images, and that of real and synthetic images."
    return Chart(traces, alt, layout, 330)


def _fitted(rate: ExchangeRate, least: int, most: int) -> Trace:
    """The curve by which the mixture's AUC becomes a number of real images."""
    grid = np.geomspace(least, most, 40)
    fitted = list(rate.curve.auc(grid))
    return line(list(grid), fitted, "fitted curve", COLOURS["real"], width=1.5, hoverinfo="skip")


def _measured(points: Sequence[tuple[int, Estimate]]) -> Trace:
    """Sizes of real images alone, each with the interval of its AUC."""
    values = [value for _, value in points]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "real images alone",
        "x": [size for size, _ in points],
        "y": shorts(value.value for value in values),
        "marker": {"color": COLOURS["real"], "size": 9},
        "error_y": {
            "type": "data",
            "symmetric": False,
            "thickness": 1.5,
            "width": 3,
            "color": COLOURS["real"],
            "array": shorts(value.high - value.value for value in values),
            "arrayminus": shorts(value.value - value.low for value in values),
        },
        "hovertemplate": "%{x:,} real images<br><b>%{y:.3f}</b><extra></extra>",
    }


def roc(curves: Tables) -> Chart:
    """Mean sensitivity of each arm over 1 - specificity; of real and mixture each seed too."""
    grid = np.linspace(0, 1, 101)
    traces = [reference([0, 1], [0, 1])]
    for arm, tables in curves.items():
        main = arm in MAIN
        for rows in tables if main else ():
            drawn = np.interp(grid, rows["fpr"], rows["tpr"])
            traces.append(
                line(
                    list(grid),
                    list(drawn),
                    TITLES[arm],
                    COLOURS[arm],
                    width=0.7,
                    opacity=0.45,
                    showlegend=False,
                    legendgroup=arm,
                    hoverinfo="skip",
                )
            )
        mean = np.mean([np.interp(grid, rows["fpr"], rows["tpr"]) for rows in tables], axis=0)
        look = {"width": 2.5} if main else {"width": 1.5, "dash": "dash"}
        hover = (
            f"{text(TITLES[arm])}<br>sensitivity <b>%{{y:.3f}}</b><br>1 − specificity %{{x:.2f}}"
        )
        traces.append(
            line(
                [0.0, *grid],
                [0.0, *mean],
                TITLES[arm],
                COLOURS[arm],
                legendgroup=arm,
                hovertemplate=f"{hover}<extra></extra>",
                **look,
            )
        )
    layout = {
        "xaxis": axis("1 − specificity", range=[-0.01, 1.01]),
        "yaxis": axis("sensitivity", range=[-0.01, 1.01]),
        "legend": {"x": 1, "xanchor": "right", "y": 0.02},
    }
    return Chart(traces, "ROC curves, one per arm.", layout, 420)


def reliability(curves: Tables, calibrated: bool) -> Chart:
    """Observed fraction over predicted probability, seeds pooled; a bin's images on hover."""
    import pandas as pd

    traces = [reference([0, 1], [0, 1])]
    for arm, tables in curves.items():
        rows = pd.concat(tables)
        rows = rows[rows["calibrated"] == calibrated]
        sums = rows[["probability", "observed"]].mul(rows["images"], axis=0)
        pooled = sums.assign(images=rows["images"]).groupby(rows["low"]).sum()
        pooled = pooled[pooled["images"] > 0]
        x, y = (pooled[name] / pooled["images"] for name in ("probability", "observed"))
        hover = (
            f"{text(TITLES[arm])}<br>observed <b>%{{y:.3f}}</b><br>predicted %{{x:.3f}}"
            "<br>%{customdata:,} images over all seeds"
        )
        traces.append(
            line(
                list(x), list(y), TITLES[arm], COLOURS[arm], hovertemplate=f"{hover}<extra></extra>"
            )
            | {"mode": "lines+markers", "customdata": [int(n) for n in pooled["images"]]}
        )
    words = "calibrated" if calibrated else "uncalibrated"
    layout = {
        "xaxis": axis(f"predicted probability, {words}", range=[-0.02, 1.02]),
        "yaxis": axis("observed fraction", range=[-0.02, 1.02]),
        "legend": {"x": 0.02, "y": 0.98},
    }
    return Chart(traces, f"Reliability, {words}.", layout, 380)


def decision(curves: Tables) -> Chart:
    """Net benefit per image over the decision threshold, means over seeds."""
    first = next(iter(curves.values()))[0]
    threshold, treat_all = list(first["threshold"]), list(first["treat_all"])
    top = max(float(first["treat_all"].max()), 0.05)
    traces = [
        reference(threshold, treat_all, "treat all"),
        reference([threshold[0], threshold[-1]], [0, 0]),
    ]
    for arm, tables in curves.items():
        mean = np.mean([rows["model"] for rows in tables], axis=0)
        hover = f"{text(TITLES[arm])}<br>net benefit <b>%{{y:.3f}}</b><br>threshold %{{x:.2f}}"
        traces.append(
            line(
                threshold,
                list(mean),
                TITLES[arm],
                COLOURS[arm],
                hovertemplate=f"{hover}<extra></extra>",
            )
        )
    layout = {
        "xaxis": axis("decision threshold (probability of malignancy)", range=[0, 1]),
        "yaxis": axis("net benefit per image", range=[-0.25 * top, 1.1 * top]),
        "legend": {"x": 1, "xanchor": "right", "y": 1},
    }
    alt = "Decision curves: net benefit against decision threshold."
    return Chart(traces, alt, layout, 420)


def training(
    steps: Sequence[float],
    values: Sequence[float],
    held_out: tuple[Sequence[float], Sequence[float]],
) -> Chart:
    """The training loss of the generator over optimiser steps, and that of held-out images."""
    width, every = max(1, len(values) // 20), max(1, len(values) // _MOST_POINTS)
    smooth = np.convolve(values, np.ones(width) / width, mode="valid")
    traces = [
        line(
            steps[::every],
            values[::every],
            "each step",
            COLOURS["real"],
            width=0.7,
            opacity=0.4,
            hoverinfo="skip",
        ),
        line(
            steps[len(values) - len(smooth) :][::every],
            list(smooth[::every]),
            "running mean",
            COLOURS["real"],
            hovertemplate="step %{x:,}: <b>%{y:.4f}</b><extra></extra>",
        ),
    ]
    if held_out[0]:
        traces.append(
            line(
                *held_out,
                "held out",
                COLOURS["mixture"],
                hovertemplate="held out, step %{x:,}: <b>%{y:.4f}</b><extra></extra>",
            )
            | {"mode": "lines+markers"}
        )
    layout = {
        "xaxis": axis("optimiser step"),
        "yaxis": axis("loss"),
        "legend": {"x": 1, "xanchor": "right", "y": 1},
    }
    return Chart(traces, "Loss against optimiser step.", layout, 300)
