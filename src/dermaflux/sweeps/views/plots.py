"""`dermaflux plots`: DVC's plots of several revisions as one page that needs no network.

`dvc plots diff` writes a page that loads its drawing library from a server; here plotly is part of
the page. Reads the plots of dvc.yaml through DVC, writes reports/plots.html.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from dermaflux import paths
from dermaflux.core.files import write_text
from dermaflux.errors import InputError, one_line
from dermaflux.sweeps.dvc_experiments import repository

PAGE = paths.REPORTS / "plots.html"


@dataclass
class Chart:
    """Curves that share their axes."""

    title: str
    x: str
    y: str
    curves: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    """Name, made of the file and the revision -> values of x and y."""


def run(revisions: Sequence[str], output: Path = PAGE) -> None:
    """Write the page; without revisions of `HEAD` and the working directory."""
    from dvc.exceptions import DvcException
    from dvc.scm import SCMError

    try:
        with repository() as repo:
            names = list(revisions) or ["HEAD", "workspace"]
            charts = collected(repo.plots.show(revs=names), repo.plots.templates_dir)
    except (DvcException, SCMError) as error:
        raise InputError(
            f"the plots of {one_line(', '.join(revisions) or 'HEAD', 200)} cannot be read "
            f"({one_line(error, 200)}); name revisions that `git log` or `dvc exp show` lists"
        ) from None
    if not charts:
        raise InputError("there are no plots in these revisions; run `dvc repro`, or `dvc fetch`")
    write_text(output, page(charts))
    count = sum(len(chart.curves) for chart in charts)
    print(f"plots: {len(charts)} charts of {count} curves in {output}")


def collected(data: Mapping[str, Any], templates: str | None) -> list[Chart]:
    """Charts from what `dvc plots` reads; the files of one folder are curves of one chart."""
    from dvc.render.match import match_defs_renderers

    charts: dict[str, Chart] = {}
    for renderer, _, _ in match_defs_renderers(data=data, templates_dir=templates):
        if renderer.TYPE != "vega":
            continue
        name, properties = renderer.name, renderer.properties
        is_file = name.endswith((".csv", ".tsv", ".json", ".yaml"))
        title = Path(name).parent.as_posix() if is_file else name
        x, y = properties.get("x"), properties.get("y")
        if not isinstance(x, str) or not isinstance(y, str):
            continue
        labels = (properties.get("x_label") or x, properties.get("y_label") or y)
        chart = charts.setdefault(title, Chart(title, *labels))
        for curve, across, up in _points(renderer.datapoints, x, y, name):
            xs, ys = chart.curves.setdefault(curve, ([], []))
            xs.append(across)
            ys.append(up)
    return [chart for chart in charts.values() if chart.curves]


def _points(
    rows: Sequence[Mapping[str, Any]], x: str, y: str, name: str
) -> Iterator[tuple[str, float, float]]:
    for row in rows:
        try:
            across, up = float(row[x]), float(row[y])
        except (KeyError, TypeError, ValueError):
            continue  # an empty cell: the curve has a gap
        # DVC shortens the names of files in a chart to where they differ.
        file = Path(str(row.get("filename") or name))
        yield f"{file.with_suffix('').name} ({row.get('rev', 'workspace')})", across, up


def page(charts: Sequence[Chart]) -> str:
    """The page as HTML, with the drawing library inside."""
    import plotly.graph_objects as go

    parts = []
    for number, chart in enumerate(charts):
        figure = go.Figure(
            [go.Scatter(x=x, y=y, name=name, mode="lines") for name, (x, y) in chart.curves.items()]
        )
        figure.update_layout(
            template="plotly_white", height=420, xaxis_title=chart.x, yaxis_title=chart.y
        )
        drawn = figure.to_html(full_html=False, include_plotlyjs=number == 0, div_id=f"c{number}")
        parts.append(f"<h2>{escape(chart.title)}</h2>\n{drawn}")
    joined = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Plots</title>\n'
        "<style>body{font-family:sans-serif;max-width:60rem;margin:2rem auto}</style></head>\n"
        f"<body><h1>Plots</h1>\n{joined}\n</body></html>\n"
    )
