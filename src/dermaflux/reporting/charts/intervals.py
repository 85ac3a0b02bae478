"""Charts of values with their intervals, one under the other: gains, arms, effects, fidelity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dermaflux.params.arms import COLOURS, colour, title
from dermaflux.reporting.charts.spec import Chart, Trace, axis, short, shorts, text
from dermaflux.reporting.effect_table import Row
from dermaflux.reporting.evidence_section import Said
from dermaflux.reporting.pages import interval, number, signed
from dermaflux.reporting.published.tables import Table
from dermaflux.reporting.results import HEADLINES
from dermaflux.statistics.effects import Effect
from dermaflux.statistics.evaluations import Cell, Estimate

_ROW = 26
"""Pixels of a row."""


@dataclass(frozen=True)
class Dot:
    """A value in its row, with the interval around it."""

    row: str
    value: Estimate | Effect
    colour: str
    hover: str
    """What is shown beside the value when a pointer rests on it."""
    symbol: str = "diamond"


def dots(rows: Sequence[Dot], sign: bool = False) -> list[Trace]:
    """One trace per dot, so that each bar has the colour of its dot."""
    write = signed if sign else number
    traces = []
    for dot in rows:
        value = dot.value
        limits = f" ({interval(value, sign)})" if value.has_interval else ""
        trace: Trace = {
            "type": "scatter",
            "mode": "markers",
            "x": [short(value.value)],
            "y": [text(dot.row)],
            "marker": {"color": dot.colour, "size": 10, "symbol": dot.symbol},
            "showlegend": False,
            "hovertemplate": f"{text(dot.hover)}<br><b>{write(value.value)}</b>{limits}"
            "<extra></extra>",
        }
        if value.has_interval:
            trace["error_x"] = {
                "type": "data",
                "symmetric": False,
                "array": [short(value.high - value.value)],
                "arrayminus": [short(value.value - value.low)],
                "color": dot.colour,
                "thickness": 2,
                "width": 0,
            }
        traces.append(trace)
    return traces


def _layout(rows: Sequence[str], title_x: str, zero: bool) -> dict[str, object]:
    order = [text(row) for row in dict.fromkeys(rows)]
    return {
        "xaxis": axis(title_x, zeroline=zero),
        "yaxis": {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": order[::-1],
            "automargin": True,
            "range": [-0.6, len(order) - 0.4],
            "showgrid": False,
        },
    }


def gains(effects: Sequence[Row], said: Mapping[str, Said], metric: str) -> Chart | None:
    """Of each architecture what synthetic images changed, what as many real ones did, and the gain
    from which on the run sees one. None without an effect.
    """
    rows: list[Dot] = []
    seen: list[tuple[str, float]] = []
    for row in effects:
        if (row.arm, row.against) != ("mixture", "real"):
            continue
        name = row.architecture
        rows.append(Dot(f"{name}: synthetic", row.effect, COLOURS["mixture"], "synthetic images"))
        if row.detectable is not None:
            seen.append((f"{name}: synthetic", row.detectable))
        if name in said and (ceiling := said[name].evidence.ceiling) is not None:
            hover = "as many further real images"
            rows.append(Dot(f"{name}: real", ceiling, COLOURS["more_real"], hover))
    if not rows:
        return None
    traces = dots(rows, sign=True)
    traces += [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [short(value)],
            "y": [text(where)],
            "marker": {"symbol": "line-ns-open", "size": 18, "color": _GREY},
            "showlegend": False,
            "hovertemplate": f"seen with a probability of 80 % from<br><b>{signed(value)}</b>"
            "<extra></extra>",
        }
        for where, value in seen
    ]
    names = [dot.row for dot in rows]
    alt = (
        f"Change of the test {metric} by synthetic images and by as many real ones, with intervals."
    )
    layout = _layout(names, f"change of the test {metric}", zero=True)
    return Chart(traces, alt, layout, max(330, 90 + _ROW * len(names)))


def arms(
    cells: Sequence[Cell],
    means: Mapping[tuple[str, str], Estimate],
    headline: str,
    bayes: float | None,
) -> Chart:
    """The headline metric of every architecture and arm: a dot per seed, mean and interval."""
    rows, traces = [], []
    for (architecture, arm), mean in means.items():
        name = f"{architecture}, {title(arm)}"
        rows.append(Dot(name, mean, colour(arm), name))
        own = [
            (cell.seed, cell.arms[arm][headline])
            for cell in cells
            if cell.architecture == architecture and arm in cell.arms
        ]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": shorts(value for _, value in own),
                "y": [text(name)] * len(own),
                "customdata": [seed for seed, _ in own],
                "marker": {"color": colour(arm), "size": 6, "opacity": 0.4},
                "showlegend": False,
                "hovertemplate": "seed %{customdata}: %{x:.3f}<extra></extra>",
            }
        )
    names = [dot.row for dot in rows]
    words = HEADLINES[headline]
    layout = _layout(names, f"test {words} (dots: seeds; diamond and bar: mean, interval)", False)
    if bayes is not None:
        best = short(bayes)
        layout["shapes"] = [
            {
                "type": "line",
                "x0": best,
                "x1": best,
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "line": {"width": 1, "dash": "dash"},
            }
        ]
        layout["annotations"] = [
            {
                "x": best,
                "y": 1,
                "yref": "paper",
                "yanchor": "bottom",
                "showarrow": False,
                "text": f"best possible (Bayes) {bayes:.3f}",
            }
        ]
    alt = f"Test {words} of each classifier and arm with intervals; the table has the numbers."
    return Chart(traces + dots(rows), alt, layout, 100 + _ROW * len(names))


def effects(rows: Sequence[Row], metric: str) -> Chart:
    """Every difference between two arms with its interval."""
    found = [
        Dot(
            f"{row.architecture}: {title(row.arm)} − {title(row.against)}",
            row.effect,
            COLOURS[row.arm if row.against == "real" else row.against],
            f"{row.architecture}: {row.verdict}",
        )
        for row in rows
    ]
    names = [dot.row for dot in found]
    alt = f"Differences in {metric} between arms with intervals; the table has the numbers."
    layout = _layout(names, f"difference in the test {metric}", zero=True)
    return Chart(dots(found, sign=True), alt, layout, 90 + _ROW * len(names))


def published(table: Table) -> Chart | None:
    """The first figure of a published table: what the paper states, and ours beside it.

    None with fewer than three values, or for differences among them.
    """
    name, words = next(iter(table.figures.items()), ("", ""))
    rows = [row for row in table.rows if name in row.cells and not row.difference]
    stated = [row for row in rows if row.cells[name].published is not None]
    if len(stated) < 3:
        return None
    found, names = [], []
    for row in rows:
        where, cell = ", ".join(row.labels), row.cells[name]
        names.append(where)
        if cell.published is not None:
            found.append(Dot(where, Estimate(cell.published), _GREY, "published", "circle-open"))
        if cell.ours is not None:
            found.append(Dot(where, cell.ours, COLOURS["mixture"], f"ours ({row.state})"))
    alt = f"{words} of each row of the table below: published and, where it was run, ours."
    layout = _layout(names, f"{words} (circles: published; diamonds and bars: ours)", False)
    return Chart(dots(found), alt, layout, 90 + 20 * len(names))


_GREY = "#7d8894"
_SHARES = {
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
}


def fidelity(comparisons: Sequence[Mapping[str, object]]) -> Chart | None:
    """Precision, recall, density and coverage of the whole pool, and their floor: real images.

    None where no comparison of the whole pool has one of them.
    """
    rows = []
    for comparison in comparisons:
        if comparison.get("group") != "all":
            continue
        split = str(comparison["reference"])
        for name, words in _SHARES.items():
            for source, shade, kind in (
                (comparison, COLOURS["mixture"], "synthetic"),
                (comparison.get("floor"), COLOURS["real"], "real (floor)"),
            ):
                found = source.get(name) if isinstance(source, Mapping) else None
                if isinstance(found, Mapping) and found.get("value") is not None:
                    value = Estimate(found["value"], found["low"], found["high"])
                    hover = f"{words} of {kind} images against {split}"
                    rows.append(Dot(f"{words}, {split}", value, shade, hover))
    if not rows:
        return None
    names = list(dict.fromkeys(dot.row for dot in rows))
    alt = "Precision, recall, density and coverage of synthetic images and of real ones."
    layout = _layout(names, "orange: synthetic images; blue: real ones in their place", False)
    return Chart(dots(rows), alt, layout, 90 + 32 * len(names))
