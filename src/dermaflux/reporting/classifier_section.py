"""What the page says of the classifiers: figures, effects, curves, groups and calibration.

Reads reports/evaluate/ and corpus/; writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dermaflux import paths
from dermaflux.core.arms import TITLES
from dermaflux.params import Params
from dermaflux.reporting import classifier_plots, effect_table, results
from dermaflux.statistics import evaluations, seed_means
from dermaflux.statistics.evaluations import Cell, Estimate

if TYPE_CHECKING:
    import pandas as pd

GROUP_FIGURES = {
    "auc": {
        "auc": "AUC",
        "sensitivity": "Sensitivity",
        "specificity": "Specificity",
        "calibration_error": "Calibration error",
    },
    "mauc": {
        "auc": "AUC against the rest",
        "accuracy": "Accuracy",
        "sensitivity": "Sensitivity",
        "calibration_error": "Calibration error",
    },
}
"""Headline figure -> columns of the table of groups."""
_STRONG = ("real", "mixture")


def build(params: Params, bayes: float | None) -> dict[str, Any]:
    """Everything the templates of the sections need."""
    cells = evaluations.load(params)
    level, headline = params.evaluate.confidence, results.headline(params)
    means = seed_means.means(params, cells)
    compared: dict[tuple[str, str], Estimate] = {
        place: found[headline].estimate(level) for place, found in means.items()
    }
    columns, points = results.columns(cells), results.operating_points(params)
    effects = effect_table.table(
        means, params.train.architectures, params.train.arms, headline, level
    )
    roc, reliability, decision = (
        _curves(cells, name, arms)
        for name, arms in (("roc", None), ("reliability", _STRONG), ("decision", _STRONG))
    )
    return {
        "cells": cells,
        "columns": columns,
        "points": points,
        "headline": headline,
        "test": cells[0].test,
        "trained_on": {arm: images(params, arm) for arm in TITLES},
        "rows": [
            {
                "architecture": architecture,
                "arm": arm,
                "images": images(params, arm),
                "metrics": {name: found[name].estimate(level) for name in (*columns, *points)},
            }
            for (architecture, arm), found in means.items()
        ],
        "effects": effects,
        "answers": {
            name: (_question(effects, name), effect_table.answer(effects, name))
            for name in params.train.architectures
        },
        "forest": classifier_plots.forest(cells, compared, TITLES, headline, bayes),
        "effect_plot": classifier_plots.effects(effects, TITLES) if effects else None,
        "bayes": bayes,
        "curves": {
            name: {
                "ROC": classifier_plots.roc(roc[name], TITLES),
                "reliability": classifier_plots.reliability(reliability[name], TITLES),
                "decision": classifier_plots.decision(decision[name], TITLES)
                if name in decision
                else None,
            }
            for name in roc
        },
        "calibration": _calibration(cells),
        "groups": _groups(cells),
        "group_figures": GROUP_FIGURES[headline],
    }


def images(params: Params, arm: str) -> str:
    """What an arm is trained on, in words."""
    if params.real_fraction is not None:
        real = f"{100 * params.real_fraction:g} % of the real"
        more = (
            f"{params.ratio:g} x as many"
            if params.n_synthetic is None
            else f"{params.n_synthetic:,}"
        )
    else:
        real, more = f"{params.n_real:,} real", f"{params.synthetic_wanted():,}"
    return {
        "real": real,
        "mixture": f"{real} + {more} synthetic",
        "repeated": f"{real} + {more} of them again",
        "augmented": f"{real} + {more} of them again, strongly augmented",
        "random_features": f"{real}, network frozen at random weights",
    }[arm]


def _question(effects: Sequence[effect_table.Row], architecture: str) -> effect_table.Row | None:
    return next(
        (
            row
            for row in effects
            if (row.architecture, row.arm, row.against) == (architecture, "mixture", "real")
        ),
        None,
    )


def _curves(
    cells: Sequence[Cell], kind: str, wanted: Sequence[str] | None
) -> dict[str, dict[str, list[pd.DataFrame]]]:
    """Architecture -> arm -> one table per seed, of those that were written."""
    import pandas as pd

    found: dict[str, dict[str, list[pd.DataFrame]]] = {}
    for cell in cells:
        for arm in cell.arms:
            path = paths.EVALUATIONS / cell.name / kind / f"{arm}.csv"
            if (wanted is None or arm in wanted) and path.is_file():
                by_arm = found.setdefault(cell.architecture, {})
                by_arm.setdefault(arm, []).append(pd.read_csv(path))
    return found


def _calibration(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Per architecture and arm, means over seeds: figures before and after the temperature."""
    import pandas as pd

    names = ("calibration_error", "log_loss", "brier")
    wanted = ["temperature", *names, *(f"calibrated_{name}" for name in names)]
    frame = pd.DataFrame(
        {
            "architecture": cell.architecture,
            "arm": arm,
            **{name: figures.get(name) for name in wanted},
        }
        for cell in cells
        for arm, figures in cell.arms.items()
    )
    means = frame.groupby(["architecture", "arm"], sort=False).mean(numeric_only=True)
    rows: list[dict[str, Any]] = means.reset_index().to_dict("records")
    return rows


def _groups(cells: Sequence[Cell]) -> dict[str, list[dict[str, Any]]]:
    """Architecture -> a row per group and strong arm, figures and limits averaged over seeds."""
    import pandas as pd

    keys = ["grouping", "group", "arm"]
    found: dict[str, list[pd.DataFrame]] = {}
    for cell in cells:
        path = paths.EVALUATIONS / cell.name / "groups.csv"
        if path.is_file():
            rows = pd.read_csv(path, dtype={"group": str, "note": str})
            found.setdefault(cell.architecture, []).append(rows[rows["arm"].isin(_STRONG)])
    tables = {}
    for architecture, parts in found.items():
        rows = pd.concat(parts)
        grouped = rows.groupby(keys, sort=False, dropna=False)
        means = grouped.mean(numeric_only=True)
        means["note"] = grouped["note"].first().fillna("")
        order = means.index.droplevel("arm").drop_duplicates()
        records = means.reset_index().to_dict("records")
        place = {pair: number for number, pair in enumerate(order)}
        records.sort(key=lambda row: place[row["grouping"], row["group"]])
        tables[architecture] = records
    return tables
