"""Command `results`: the finished experiments of a grid, laid out as in the paper.

Reads `grids/<name>.yaml`, the experiments in git and DVC's cache, and from `corpus/` which test
images show one lesion; writes `reports/grids/<name>/` with `index.html` (self-contained),
`curves.svg`, `roc.svg`, `table.csv` and `effects.json`; beside published figures, for the stage
`report`, `published.json`, or `published.csv` for the layouts `table` and `fidelity`; of a grid
with pools also `leaderboard.json`. Command: `dermaflux results figure4`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaflux import paths
from dermaflux.core.files import atomic_folder, write_json
from dermaflux.errors import InputError
from dermaflux.params.arms import title
from dermaflux.reporting import pages
from dermaflux.reporting.images import data_uri
from dermaflux.statistics import seed_means
from dermaflux.sweeps import (
    arm_rows,
    contrasts,
    curves,
    dvc_experiments,
    grid,
    outcomes,
    published_table,
    questions,
)
from dermaflux.sweeps.arm_rows import TITLES
from dermaflux.sweeps.fidelity import pool
from dermaflux.sweeps.fidelity import table as fidelity_table
from dermaflux.sweeps.grid import Grid
from dermaflux.sweeps.leaderboard import page as leaderboard_page
from dermaflux.sweeps.leaderboard import submissions as submitted
from dermaflux.sweeps.leaderboard.collect import collect
from dermaflux.sweeps.outcomes import Experiment

if TYPE_CHECKING:
    from dermaflux.core.arrays import Array

_CURVES = ("ratios", "low_data")


def run(name: str, submissions: Sequence[Path] = ()) -> None:
    """Collect the finished experiments, name the missing ones, and write the page.

    `submissions` are files of `leaderboard.json`, or folders of them, for a grid with pools. A
    page is written without those that cannot be shown, which an `InputError` then names.
    """
    definition = grid.load(name)
    runs = grid.runs(name, definition)
    if submissions and not definition.pools:
        raise InputError(
            f"{grid.FOLDER / name}.yaml has no pools, so there is no leaderboard to submit to; "
            "leave --submission out"
        )
    others = submitted.files(submissions)
    published = bool(definition.table or definition.fidelity)
    baseline, finished = dvc_experiments.newest(runs, may_be_none=published)
    done = [run for run in runs if run.name in finished]
    audited = [pool.read(run, finished[run.name]) for run in done if definition.fidelity]
    experiments = [outcomes.read(run, finished[run.name]) for run in done if not audited]
    missing = [run.name for run in runs if run.name not in finished]
    groups = _lesions(experiments)
    page = _page(name, definition, experiments, groups, missing, baseline)
    page["fidelity"] = fidelity_table.rows(definition, audited)
    page["figures_of_pools"] = fidelity_table.shown(page["fidelity"])
    refused: list[str] = []
    if definition.pools:
        away = [run for run in runs if run.name in missing]
        board, refused = collect(
            name, definition, experiments, finished, away, groups, baseline, others
        )
        page |= leaderboard_page.values(board)
    for absent in missing:
        print(f"{absent}: not finished, left out")
    for question, rows in page["families"].items():
        print(question)
        for row in rows:
            print(
                f"  {row['metric']} of {row['architecture']}, {row['name']}: {row['value']:+.3f} "
                f"({row['low']:+.3f} to {row['high']:+.3f}), p {row['p']:.3g}: {row['verdict']}"
            )
    for row in page["table"]:
        print(published_table.line(row))
    for row in page["fidelity"]:
        print(fidelity_table.line(row))
    if page["board"]:
        print(*leaderboard_page.lines(page["board"]), sep="\n")
    target = paths.GRIDS / name
    _write(target, page)
    print(f"results: {target / 'index.html'} ({len(done)} of {len(runs)} experiments)")
    if refused:
        print(*refused[1:], sep="\n", file=sys.stderr)
        raise InputError(f"the page has no row of a submission that is refused: {refused[0]}")


def _lesions(experiments: Sequence[Experiment]) -> Array:
    """(N,) lesion numbers of the test images, of the binary experiments where there are any.

    Raises `InputError` unless all experiments of one kind of labels share one test set.
    """
    firsts: dict[str, Experiment] = {}
    for experiment in experiments:
        first = firsts.setdefault(experiment.params.train.labels, experiment)
        if list(experiment.image_ids) != list(first.image_ids):
            raise InputError(
                f"{experiment.run.name} and {first.run.name} were tested on different images, so "
                "they cannot be compared; queue the grid again from one commit"
            )
    if not firsts:
        return np.empty(0, int)
    return seed_means.lesions((firsts.get("malignancy") or experiments[0]).image_ids)


def _page(
    name: str,
    definition: Grid,
    experiments: Sequence[Experiment],
    groups: Array,
    missing: Sequence[str],
    baseline: str,
) -> dict[str, Any]:
    """Everything the template and the files beside it show."""
    level = experiments[0].params.evaluate.confidence if experiments else math.nan
    rows = arm_rows.rows(definition, experiments, level)
    if definition.pools:
        rows = arm_rows.without_repeats(rows)
    shown = [metric for metric in TITLES if any(metric in row for row in rows)]
    has_curves = definition.layout in _CURVES
    return {
        "name": name,
        "arms": {row["arm"]: title(row["arm"]) for row in rows},
        "definition": definition,
        "baseline": baseline,
        "missing": missing,
        "level": level if experiments else None,
        "images": len(experiments[0].image_ids) if experiments else 0,
        "rows": rows,
        "stated": arm_rows.stated(definition, experiments, level),
        "shown": {metric: TITLES[metric] for metric in shown},
        "families": questions.answered(definition, experiments, groups, level),
        "table": published_table.rows(definition, experiments, level),
        "figures": published_table.FIGURES,
        "curves": curves.over_ratio(rows, shown[:2], TITLES) if has_curves else None,
        "zero_shot": _zero_shot(experiments, groups),
        "board": None,
        "fidelity": [],
        "figures_of_pools": {},
    }


def _zero_shot(experiments: Iterable[Experiment], groups: Array) -> dict[str, Any] | None:
    """The best trained classifier by validation against every zero-shot model."""
    experiment = next((each for each in experiments if each.zero_shot), None)
    if experiment is None:
        return None
    key, seed = contrasts.best(experiment)
    metrics, scores = experiment.metrics[key][seed], experiment.scores[key][seed]
    compared = contrasts.against_zero_shot(experiment.labels, scores, experiment.zero_shot, groups)
    best = f"{key[0]}-{experiment.params.train.seeds[seed]}/{key[1]}"
    return {
        "best": best,
        "auc": float(metrics["auc"]),
        "accuracy": float(metrics["accuracy"]),
        "models": [
            {
                "name": name,
                "auc": float(metrics["auc"]) - comparison.difference,
                "accuracy": float(
                    ((experiment.zero_shot[name] >= 0.5) == experiment.labels).mean()
                ),
                "difference": comparison.difference,
                "error": comparison.standard_error,
                "p": corrected,
            }
            for name, (comparison, corrected) in compared.items()
        ],
        "roc": curves.roc(experiment.labels.astype(int), {best: scores, **experiment.zero_shot}),
    }


def _write(target: Path, page: dict[str, Any]) -> None:
    import pandas as pd

    environment = pages.environment(Path(__file__).parent)
    environment.filters["uri"] = data_uri
    with atomic_folder(target) as partial:
        pd.DataFrame(map(arm_rows.flat, page["rows"])).to_csv(partial / "table.csv", index=False)
        if page["table"]:
            lines = map(published_table.flat, page["table"])
            pd.DataFrame(lines).to_csv(partial / "published.csv", index=False)
        if page["fidelity"]:
            lines = map(fidelity_table.flat, page["fidelity"])
            pd.DataFrame(lines).to_csv(partial / "published.csv", index=False)
        if page["definition"].published:
            write_json(partial / "published.json", {"rows": page["stated"]})
        keys = ("families", "missing", "baseline", "level", "images")
        write_json(partial / "effects.json", {key: page[key] for key in keys})
        if page["board"]:
            content = page["board"].model_dump(mode="json", by_alias=True)
            write_json(partial / "leaderboard.json", content)
        if page["curves"]:
            (partial / "curves.svg").write_bytes(page["curves"])
        if page["zero_shot"]:
            (partial / "roc.svg").write_bytes(page["zero_shot"]["roc"])
        text = environment.get_template("results.html").render(**page)
        (partial / "index.html").write_text(text, encoding="utf-8")
