"""What each arm of each experiment scored: the rows of a grid's table. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaflux.params import ENLARGED, MIXED
from dermaflux.statistics import effects
from dermaflux.sweeps.grid import Grid
from dermaflux.sweeps.outcomes import Experiment
from dermaflux.sweeps.published import Published

if TYPE_CHECKING:
    from dermaflux.core.arrays import Array

TITLES = {
    "auc": "ROC-AUC",
    "accuracy": "Accuracy",
    "mauc": "Macro AUC",
    "macro_f1": "Macro F1",
    "weighted_f1": "Weighted F1",
    "f1": "F1",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
}
"""Metrics of the tables, of those that the experiments have."""


def rows(definition: Grid, experiments: Sequence[Experiment], level: float) -> list[dict[str, Any]]:
    """One row per experiment, architecture and arm: means over seeds with t intervals."""
    found = []
    for experiment in experiments:
        params = experiment.params
        for (architecture, arm), per_seed in experiment.metrics.items():
            added = experiment.n_synthetic if arm in ENLARGED else 0
            each = params.curve_sizes().get(arm)
            n_real = params.n_real if each is None else 2 * each
            synthetic = added if arm in MIXED else 0
            row: dict[str, Any] = {
                "experiment": experiment.run.name,
                "architecture": architecture,
                "arm": arm,
                "n_real": n_real if params.real_fraction is None else None,
                "real_fraction": params.real_fraction,
                "n_synthetic": synthetic,
                "ratio": added / params.n_real if params.n_real else math.inf,
                "generator": params.generator if synthetic else "",
                "seeds": len(per_seed),
                "majority_accuracy": per_seed[0].get("majority_accuracy"),
            }
            for metric in TITLES:
                if all(metric in values for values in per_seed):
                    values = np.array([float(values[metric]) for values in per_seed])
                    row[metric] = effects.effect(values, np.empty(0), level)
            row["published"] = {
                published.figure: published.value
                for published in definition.published
                if not published.over
                and matches(published, experiment)
                and published.architecture == architecture
                and arm == (published.arm or ("mixture" if experiment.n_synthetic else "real"))
            }
            found.append(row)
    return found


def stated(
    definition: Grid, experiments: Sequence[Experiment], level: float
) -> list[dict[str, Any]]:
    """Every published figure that finished experiments measured, with ours: mean and t interval.

    A row has `at`, `over`, `architecture`, `arm` and `figure` as the grid file states them, and
    `value`, `low` and `high`, None without an interval. A difference is taken seed by seed.
    """
    rows = []
    for published in definition.published:
        first = _measured(experiments, published, published.at)
        second = _measured(experiments, published, published.over) if published.over else None
        if first is None or (published.over and (second is None or len(second) != len(first))):
            continue
        mean = effects.effect(first if second is None else first - second, np.empty(0), level)
        limits = (mean.low, mean.high) if mean.has_interval else (None, None)
        entry = published.model_dump(exclude={"value"})
        rows.append({**entry, "value": mean.value, "low": limits[0], "high": limits[1]})
    return rows


def _measured(
    experiments: Sequence[Experiment], published: Published, at: Mapping[str, Any]
) -> Array | None:
    """(S,) the figure of each seed in the experiment with the parameters `at`; None without one."""
    for experiment in experiments:
        if at.items() <= experiment.run.overrides.items():
            arm = published.arm or ("mixture" if experiment.n_synthetic else "real")
            seeds = experiment.metrics.get((published.architecture, arm), [])
            if seeds and all(published.figure in each for each in seeds):
                return np.array([float(each[published.figure]) for each in seeds])
    return None


def without_repeats(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a grid with pools, with what all of them share shown once."""
    first = rows[0]["experiment"] if rows else ""
    return [
        row if row["n_synthetic"] else {**row, "experiment": "all pools"}
        for row in rows
        if row["n_synthetic"] or row["experiment"] == first
    ]


def matches(published: Published, experiment: Experiment) -> bool:
    """Whether a published figure is of the parameters that an experiment was run with."""
    return published.at.items() <= experiment.run.overrides.items()


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the page as plain values: an interval takes three columns."""
    plain = {key: value for key, value in row.items() if key not in ("published", *TITLES)}
    for metric in TITLES:
        if metric in row:
            mean = row[metric]
            plain |= {metric: mean.value, f"{metric}_low": mean.low, f"{metric}_high": mean.high}
    return plain | {f"published_{metric}": value for metric, value in row["published"].items()}
