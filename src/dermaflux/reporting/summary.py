"""The end of `make demo`: the results of the last `dvc repro` as short tables on the terminal.

Reads synthetic/ (labels only) and reports/; writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from dermaflux import paths
from dermaflux.params import Params
from dermaflux.reporting import counts, effect_table, evidence_section, results, shortcut_section
from dermaflux.reporting.evidence_section import Said
from dermaflux.reporting.pages import interval, number, percent, signed
from dermaflux.reporting.report import bayes_auc, read_json
from dermaflux.statistics import evaluations, seed_means
from dermaflux.statistics.seed_means import Means

if TYPE_CHECKING:
    from rich.table import Table


def _corpus() -> Table:
    from rich import box
    from rich.table import Table

    corpus = counts.corpus()
    grid = Table(title="Corpus", title_justify="left", box=box.SIMPLE)
    grid.add_column("scale", no_wrap=True)
    for name in corpus.total:
        grid.add_column(name, justify="right", no_wrap=True)
    for scale, row in corpus.scales.iterrows():
        grid.add_row(f"{scale} px" if scale != "none" else "none", *(f"{n:,}" for n in row))
    grid.add_section()
    grid.add_row("all", *(f"{count:,}" for count in corpus.total.values()))
    return grid


def _scores(params: Params, means: Means, said: Mapping[str, Said]) -> Table:
    from rich import box
    from rich.table import Table

    level, headline = params.evaluate.confidence, results.headline(params)
    seeds = len(params.train.seeds)
    rows = effect_table.judged(
        effect_table.table(means, params.architectures(), params.arms(), headline, level),
        [name for name, each in said.items() if each.evidence.blind],
    )
    differences = {(row.architecture, row.arm): row for row in rows if row.against == "real"}
    # Whatever lacks something, the page takes from the arm that has it; here each arm has a line.
    lacking = [_turned(row) for row in rows if row.against in ("scratch", *effect_table.ABLATIONS)]
    differences |= {(row.architecture, row.arm): row for row in lacking}
    scores = Table(
        title=f"Test {results.METRICS[headline]}: mean over {seeds} seed{'s' * (seeds > 1)}, "
        f"{percent(level)} intervals over {'seeds and ' * (seeds > 1)}test images",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )
    scores.add_column("classifier", no_wrap=True)
    for name in ("AUC", "interval", "− real", "interval"):
        scores.add_column(name, justify="right", no_wrap=True)
    scores.add_column("effect")  # the one that may take two lines
    for architecture in params.architectures():
        scores.add_row(architecture, style="bold")
        for arm in [arm for name, arm in means if name == architecture]:
            mean = means[architecture, arm][headline].estimate(level)
            row = [arm.replace("_", " "), number(mean.value), interval(mean) or "none"]
            difference = differences.get((architecture, arm))
            if difference is not None:
                effect, other = difference.effect, difference.against
                row += [signed(effect.value), interval(effect, True) or "none"]
                row += [difference.verdict + f" (− {other})" * (other != "real")]
            scores.add_row(*row)
    return scores


def _turned(row: effect_table.Row) -> effect_table.Row:
    """The difference the other way round."""
    effect = row.effect
    turned = replace(effect, value=0 - effect.value, low=0 - effect.high, high=0 - effect.low)
    return replace(row, arm=row.against, against=row.arm, effect=turned)


def run(params: Params) -> None:
    """Print counts, AUC of every classifier, the champion and the path of the report."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    synthetic = counts.synthetic().sum()
    rejected = len(read_json(paths.REJECTED).get("rejected", []))
    console.print(_corpus())
    console.print(f"Synthetic images: {synthetic:,}, of which the audit rejected {rejected:,}\n")
    cells = evaluations.load(params)
    means, headline = seed_means.means(params, cells), results.headline(params)
    said = evidence_section.build(params, means, headline, int(cells[0].test["images"]))
    console.print(_scores(params, means, said))
    for sentence in evaluations.said(cells):
        console.print(sentence)
    for architecture, each in said.items():
        console.print(f"{architecture}: {' '.join(each.sentences)}")
    for architecture, composed in shortcut_section.compositions(cells, headline).items():
        console.print(f"{architecture}: {composed}.")
    bayes = bayes_auc()
    if bayes is not None:
        console.print(f"Best possible on the phantom corpus (Bayes): AUC {number(bayes)}")
    promote = read_json(paths.PROMOTE_REPORT)
    if promote:
        best = promote.get("champion")
        champion = f"{best['cell']}/{best['arm']}" if best else "none"
        console.print(f"Champion: {champion} ({promote['decision']}: {promote['reason']})")
    console.print(f"Report: {paths.REPORT_PAGE}")
