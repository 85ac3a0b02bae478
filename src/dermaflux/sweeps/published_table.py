"""A published table row by row: what the paper states beside what the grid's experiments gave.

Pure functions on a grid and experiments that were read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from dermaflux.errors import InputError, quoted
from dermaflux.statistics import effects
from dermaflux.sweeps.grid import Grid
from dermaflux.sweeps.outcomes import Experiment
from dermaflux.sweeps.published import Labels

FIGURES = {
    "accuracy": "accuracy",
    "f1": "F1 of the malignant class",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
}
"""Metrics of an experiment that stand beside a published accuracy and F1."""
QUOTED = "not run: the paper quotes it from another one"


def rows(grid: Grid, experiments: Sequence[Experiment], level: float) -> list[dict[str, Any]]:
    """One row per published row and kind of labels, in the order of the table.

    `ours` maps `FIGURES` to means over seeds with t intervals at `level`; it is empty, and `state`
    says why, where the experiment is not finished. Raises `InputError` for a row whose cell a
    finished experiment did not train.
    """
    finished = {(each.run.block, each.params.train.labels): each for each in experiments}
    table = []
    for row in grid.table:
        architecture, _, arm = row.cell.partition("/")
        for labels in get_args(Labels):
            stated = row.stated(labels)
            if not stated:
                continue
            experiment = finished.get((row.run, labels))
            per_seed = experiment.metrics.get((architecture, arm), []) if experiment else []
            if experiment and not per_seed:
                trained = ", ".join(map("/".join, experiment.metrics))
                raise InputError(
                    f"the row {quoted(row.title)} has the cell {quoted(row.cell)} but "
                    f"{experiment.run.name} trained {trained}; correct the cell"
                )
            table.append(
                {
                    "title": row.title,
                    "labels": labels,
                    "published": stated,
                    "state": "finished" if per_seed else "not run" if row.run else QUOTED,
                    "seeds": len(per_seed),
                    "majority_accuracy": experiment.majority_accuracy if experiment else None,
                    "ours": {
                        name: effects.effect(
                            np.array([float(each[name]) for each in per_seed]), np.empty(0), level
                        )
                        for name in FIGURES
                        if per_seed and all(name in each for each in per_seed)
                    },
                }
            )
    return table


def line(row: dict[str, Any]) -> str:
    """A row as one printed line."""
    stated = ", ".join(
        f"{name.replace('f1', 'F1')} {value:.4f}"
        for name, value in row["published"].items()
        if value is not None
    )
    ours = row["state"]
    if row["ours"]:
        ours = ", ".join(f"{FIGURES[name]} {mean.value:.3f}" for name, mean in row["ours"].items())
        ours += f" (majority accuracy {row['majority_accuracy']:.3f}, {row['seeds']} seeds)"
    return f"{row['title']}, {row['labels']}: published {stated}; ours {ours}"


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row as plain values: an interval takes three columns."""
    plain = {key: value for key, value in row.items() if key not in ("published", "ours")}
    plain |= {f"published_{name}": value for name, value in row["published"].items()}
    for name, mean in row["ours"].items():
        plain |= {name: mean.value, f"{name}_low": mean.low, f"{name}_high": mean.high}
    return plain
