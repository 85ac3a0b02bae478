"""The page's sections on the classifiers: metrics, effects, curves, groups and calibration.

Reads reports/evaluate/ and corpus/; writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dermaflux import paths
from dermaflux.core.files import read_csv
from dermaflux.params import Params
from dermaflux.params.arms import TITLES
from dermaflux.reporting import (
    classifier_plots,
    effect_table,
    evidence_section,
    results,
    shortcut_section,
)
from dermaflux.reporting.charts import collect
from dermaflux.reporting.classifier_plots import MAIN
from dermaflux.statistics import evaluations, seed_means
from dermaflux.statistics.evaluations import Cell, Estimate

if TYPE_CHECKING:
    import pandas as pd

GROUP_METRICS = {
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
"""Headline metric -> columns of the table of groups."""


def build(params: Params, bayes: float | None) -> dict[str, Any]:
    """Everything the templates of the sections need."""
    cells = evaluations.load(params)
    level, headline = params.evaluate.confidence, results.headline(params)
    means = seed_means.means(params, cells)
    compared: dict[tuple[str, str], Estimate] = {
        key: metrics[headline].estimate(level) for key, metrics in means.items()
    }
    columns, points = results.columns(cells), results.operating_points(params)
    said = evidence_section.build(params, means, headline, int(cells[0].test["images"]))
    effects = effect_table.judged(
        effect_table.table(means, params.architectures(), params.arms(), headline, level),
        [name for name, each in said.items() if each.evidence.blind],
    )
    composed = shortcut_section.compositions(cells, headline)
    drawn = {
        kind: _curves(cells, kind, arms)
        for kind, arms in (("roc", tuple(TITLES)), ("reliability", MAIN), ("decision", MAIN))
    }
    best = bayes if headline == "auc" else None  # it is of malignancy, not of diagnoses
    charts = collect.of_classifiers(params, cells, compared, effects, said, drawn, headline, best)
    return {
        "cells": cells,
        "over_seeds": means,
        "charts": charts,
        "worth": [name for name in params.architectures() if f"worth-{name}" in charts],
        "means": compared,
        "columns": columns,
        "points": points,
        "headline": headline,
        "headline_name": results.HEADLINES[headline],
        "test": cells[0].test,
        "shortages": evaluations.said(cells),
        "trained_on": {arm: training_images(params, arm) for arm in TITLES},
        "rows": _rows(params, means, (*columns, *points)),
        "beforehand": beforehand(params),
        "effects": effects,
        "said": said,
        "why_no_ceiling": {
            name: evidence_section.why_no_ceiling(params, name) for name in params.architectures()
        },
        "evidence": evidence_section.by_architecture(params, said),
        "answers": {
            name: (
                effect_table.question(effects, name),
                effect_table.answer(effects, name),
                composed.get(name, ""),
            )
            for name in params.architectures()
        },
        "forest": classifier_plots.forest(cells, compared, headline, best),
        "effect_plot": classifier_plots.effects(effects, headline) if effects else None,
        "shortcuts": shortcut_section.table(cells, headline),
        "bayes": bayes,
        "curves": {name: _static_curves(drawn, name) for name in drawn["roc"]},
        "calibration": _calibration(cells),
        "groups": _groups(cells),
        "group_metrics": GROUP_METRICS[headline],
    }


def training_images(params: Params, arm: str) -> str:
    """The training images of an arm, in words."""
    size = params.curve_sizes().get(arm)
    if size is not None:
        return f"{2 * size:,} real"
    if params.real_fraction is not None:
        real = f"{100 * params.real_fraction:g} % of the real images"
        added = (
            f"{params.ratio:g} × as many"
            if params.n_synthetic is None
            else f"{params.n_synthetic:,}"
        )
    else:
        real, added = f"{params.n_real:,} real", f"{params.synthetic_wanted():,}"
    return {
        "real": real,
        "more_real": f"{real} + {added} further real",
        "shuffled": f"{real} + {added} synthetic with shuffled labels",
        "mixture": f"{real} + {added} synthetic",
        "repeated": f"{real} + {added} repeated",
        "augmented": f"{real} + {added} repeated, strongly augmented",
        "random_features": f"{real}, backbone frozen at random weights",
        "no_teacher": f"{real} + {added} synthetic, cross-entropy alone",
        "scratch": f"{real}, from random weights",
    }[arm]


def _rows(params: Params, means: seed_means.Means, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """A row of figures for every architecture and arm."""
    return [
        {
            "architecture": architecture,
            "arm": arm,
            "images": training_images(params, arm),
            "metrics": {name: of[name].estimate(params.evaluate.confidence) for name in metrics},
        }
        for (architecture, arm), of in means.items()
    ]


def beforehand(params: Params) -> list[str]:
    """Sentences on synthetic images that the arm real saw all the same, through its start."""
    sentences, section = [], params.pretrain
    begun = [name for name in params.architectures() if params.train.models[name].pretrained_here]
    if section.images == "real":
        begun = []
    if begun:
        kind = "real and synthetic" if section.images == "both" else "synthetic"
        sentences.append(
            f"In both arms {_verb(begun, 'start')} from weights that were pre-trained on {kind} "
            f"images (pretrain.images: {section.images})."
        )
    added = params.ratio if params.n_synthetic is None else params.n_synthetic
    teacher, students = params.distill.teacher, params.distill.students
    if students and "mixture" in params.train.arms and added:
        sentences.append(
            f"In both arms {_verb(students, 'learn')} from {teacher}, which was trained on real "
            "and synthetic images."
        )
    elif students and teacher in begun:
        sentences.append(
            f"In both arms {_verb(students, 'learn')} from {teacher}, which was pre-trained so."
        )
    return sentences


def _verb(names: Sequence[str], verb: str) -> str:
    """`vit starts`, `vit and resnext start`."""
    return f"{' and '.join(names)} {verb}{'s' if len(names) == 1 else ''}"


_DRAWN = {
    "roc": ("fpr", "tpr"),
    "reliability": ("probability", "observed", "images", "low", "high"),
    "decision": ("threshold", "model", "treat_all", "treat_none"),
}
"""Kind of curve -> the columns that it is drawn from."""


def _curves(
    cells: Sequence[Cell], kind: str, arms: Sequence[str]
) -> dict[str, dict[str, list[pd.DataFrame]]]:
    """Architecture -> arm -> one table per seed, of the files that exist."""
    curves: dict[str, dict[str, list[pd.DataFrame]]] = {}
    for cell in cells:
        for arm in cell.arms:
            path = paths.EVALUATIONS / cell.name / kind / f"{arm}.csv"
            if arm in arms and path.is_file():
                by_arm = curves.setdefault(cell.architecture, {})
                rows = read_csv(path, "`dvc repro`", _DRAWN[kind])
                by_arm.setdefault(arm, []).append(rows)
    return curves


def _static_curves(drawn: collect.Curves, name: str) -> dict[str, str | None]:
    """The curves of an architecture where no script runs and in print."""
    decision = drawn["decision"].get(name)
    return {
        "ROC": classifier_plots.roc(drawn["roc"][name]),
        "reliability": classifier_plots.reliability(drawn["reliability"][name]),
        "decision": None if decision is None else classifier_plots.decision(decision),
    }


def _calibration(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Means over seeds per architecture and arm, of uncalibrated and calibrated probabilities."""
    import pandas as pd

    names = ("calibration_error", "log_loss", "brier")
    columns = ["temperature", *names, *(f"calibrated_{name}" for name in names)]
    frame = pd.DataFrame(
        {
            "architecture": cell.architecture,
            "arm": arm,
            **{name: metrics.get(name) for name in columns},
        }
        for cell in cells
        for arm, metrics in cell.arms.items()
    )
    means = frame.groupby(["architecture", "arm"], sort=False).mean(numeric_only=True)
    rows: list[dict[str, Any]] = means.reset_index().to_dict("records")
    return rows


def _groups(cells: Sequence[Cell]) -> dict[str, list[dict[str, Any]]]:
    """Architecture -> a row per group and main arm, metrics and limits averaged over seeds."""
    import pandas as pd

    keys = ["grouping", "group", "arm"]
    by_architecture: dict[str, list[pd.DataFrame]] = {}
    for cell in cells:
        path = paths.EVALUATIONS / cell.name / "groups.csv"
        if path.is_file():
            rows = read_csv(path, "`dvc repro`", texts=("group", "note", "arm"))
            rows = rows[rows["arm"].isin(MAIN)]
            by_architecture.setdefault(cell.architecture, []).append(rows)
    tables = {}
    for architecture, parts in by_architecture.items():
        rows = pd.concat(parts)
        grouped = rows.groupby(keys, sort=False, dropna=False)
        means = grouped.mean(numeric_only=True)
        means["note"] = grouped["note"].first().fillna("")
        order = means.index.droplevel("arm").drop_duplicates()
        records = means.reset_index().to_dict("records")
        index = {pair: number for number, pair in enumerate(order)}
        records.sort(key=lambda row: index[row["grouping"], row["group"]])
        tables[architecture] = records
    return tables
