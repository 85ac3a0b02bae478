"""All charts of the classifiers by the name under which the page's templates place them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dermaflux.params import Params
from dermaflux.reporting.charts import curves, intervals
from dermaflux.reporting.charts.curves import Tables
from dermaflux.reporting.charts.spec import Chart
from dermaflux.reporting.effect_table import Row
from dermaflux.reporting.evidence_section import Said
from dermaflux.reporting.results import HEADLINES
from dermaflux.statistics import evidence
from dermaflux.statistics.evaluations import Cell, Estimate

Curves = Mapping[str, Mapping[str, Tables]]
"""`roc`, `reliability` and `decision` -> architecture -> arm -> one table per seed."""


def of_classifiers(
    params: Params,
    cells: Sequence[Cell],
    means: Mapping[tuple[str, str], Estimate],
    effects: Sequence[Row],
    said: Mapping[str, Said],
    drawn: Curves,
    headline: str,
    bayes: float | None,
) -> dict[str, Chart]:
    """`arms`, `gains`, `effects`, and per architecture `worth-…`, `roc-…` and so on."""
    words = HEADLINES[headline]
    found: dict[str, Chart | None] = {
        "arms": intervals.arms(cells, means, headline, bayes),
        "gains": intervals.gains(effects, said, words),
        "effects": intervals.effects(effects, words) if effects else None,
    }
    sizes, _ = evidence.real_sizes(params)
    for name in params.architectures():
        own = {arm: mean for (architecture, arm), mean in means.items() if architecture == name}
        rate = said[name].evidence.rate if name in said else None
        found[f"worth-{name}"] = curves.worth(own, sizes, rate, words)
    for name, tables in drawn["roc"].items():
        found[f"roc-{name}"] = curves.roc(tables)
    for name, tables in drawn["reliability"].items():
        for calibrated in (False, True):
            key = f"reliability-{name}-{'calibrated' if calibrated else 'uncalibrated'}"
            found[key] = curves.reliability(tables, calibrated)
    for name, tables in drawn["decision"].items():
        found[f"decision-{name}"] = curves.decision(tables)
    return {name: chart for name, chart in found.items() if chart is not None}
