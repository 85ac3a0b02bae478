"""The end of `make demo`: the results of the last `dvc repro` as short tables on the terminal.

Reads synthetic/ (labels only) and reports/; writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dermaflux import paths
from dermaflux.params import Params
from dermaflux.reporting import counts, results
from dermaflux.reporting.report import bayes_auc, interval, number, percent, read_json, signed

if TYPE_CHECKING:
    from rich.table import Table


def _corpus() -> Table:
    from rich import box
    from rich.table import Table

    found = counts.corpus()
    grid = Table(title="Corpus", title_justify="left", box=box.SIMPLE)
    grid.add_column("scale", no_wrap=True)
    for name in found.total:
        grid.add_column(name, justify="right", no_wrap=True)
    for scale, row in found.scales.iterrows():
        grid.add_row(f"{scale} px" if scale != "none" else "none", *(f"{n:,}" for n in row))
    grid.add_section()
    grid.add_row("all", *(f"{count:,}" for count in found.total.values()))
    return grid


def _scores(params: Params, cells: Sequence[results.Cell]) -> Table:
    from rich import box
    from rich.table import Table

    level, seeds = params.evaluate.confidence, len(params.train.seeds)
    scores = Table(
        title=f"Test AUC: mean over {seeds} seed{'s' * (seeds > 1)}, {percent(level)} interval",
        title_justify="left",
        show_lines=True,
        box=box.SIMPLE,
        pad_edge=False,
    )
    scores.add_column("classifier", no_wrap=True)
    for arm in params.train.arms:
        scores.add_column(results.ARMS[arm], justify="right", no_wrap=True)
    scores.add_column("difference", justify="right", no_wrap=True)
    scores.add_column("effect")
    for architecture in params.train.architectures:
        columns = [architecture]
        for arm in params.train.arms:
            found = results.mean(cells, architecture, arm, "auc", level)
            columns.append(f"{number(found.value)}\n{interval(found) or 'no interval'}")
        gain = results.effect(cells, architecture, level)
        if gain is None:
            columns += ["–", "one arm"]
        else:
            columns.append(f"{signed(gain.value)}\n{interval(gain, True) or 'no interval'}")
            columns.append(results.verdict(gain))
        scores.add_row(*columns)
    return scores


def run(params: Params) -> None:
    """Print counts, AUC of every classifier, the champion and the path of the report."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    cells = results.load(params)
    made = counts.synthetic().sum()
    rejected = len(read_json(paths.AUDIT_REPORT).get("rejected", []))
    console.print(_corpus())
    console.print(f"Synthetic images: {made:,}, of which the audit rejected {rejected:,}\n")
    console.print(_scores(params, cells))
    bayes = bayes_auc()
    if bayes is not None:
        console.print(f"Best possible on the phantom corpus (Bayes): AUC {number(bayes)}")
    promote = read_json(paths.PROMOTE_REPORT)
    if promote:
        found = promote["champion"]
        champion = f"{found['cell']}/{found['arm']}" if found else "none"
        console.print(f"Champion: {champion} ({promote['decision']}: {promote['reason']})")
    console.print(f"Report: {paths.REPORT_PAGE}")
