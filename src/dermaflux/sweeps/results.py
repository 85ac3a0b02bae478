"""Command `results`: the finished experiments of a grid, laid out as in the paper.

Reads `grids/<name>.yaml`, the experiments in git and DVC's cache, and from `corpus/` which test
images show one lesion; writes `reports/grids/<name>/` with `index.html` (self-contained),
`curves.svg`, `roc.svg`, `table.csv`, `effects.json` and, for the layout `table`,
`published.csv`; of a grid with pools also `leaderboard.json`. Command: `dermaflux results figure4`.
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
from dermaflux.statistics.effects import Effect
from dermaflux.sweeps import (
    arm_rows,
    contrasts,
    curves,
    dvc_experiments,
    grid,
    outcomes,
    published_table,
)
from dermaflux.sweeps.arm_rows import TITLES
from dermaflux.sweeps.contrasts import Contrast, Resampled
from dermaflux.sweeps.grid import Grid, Published
from dermaflux.sweeps.leaderboard import page as leaderboard_page
from dermaflux.sweeps.leaderboard import submissions as submitted
from dermaflux.sweeps.leaderboard.collect import collect
from dermaflux.sweeps.outcomes import Experiment

if TYPE_CHECKING:
    from dermaflux.core.arrays import Array

_QUESTIONS = {
    "generators": "Which generator's images train better classifiers?",
    "synthetic": "Do synthetic images help?",
    "controls": "Do they help more than repeating or augmenting real images?",
    "shuffled": "Do they help more than the same images with shuffled labels?",
    "more_real": "What would as many further real images gain?",
    "scratch": "Do pretrained weights help?",
    "no_teacher": "Does the teacher help?",
}
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
    baseline, finished = dvc_experiments.newest(runs, may_be_none=bool(definition.table))
    experiments = [outcomes.read(run, finished[run.name]) for run in runs if run.name in finished]
    missing = [run.name for run in runs if run.name not in finished]
    groups = _lesions(experiments)
    page = _page(name, definition, experiments, groups, missing, baseline)
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
    if page["board"]:
        print(*leaderboard_page.lines(page["board"]), sep="\n")
    target = paths.GRIDS / name
    _write(target, page)
    print(f"results: {target / 'index.html'} ({len(experiments)} of {len(runs)} experiments)")
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
        "shown": {metric: TITLES[metric] for metric in shown},
        "families": _questions(definition, experiments, groups, level),
        "table": published_table.rows(definition, experiments, level),
        "figures": published_table.FIGURES,
        "curves": curves.over_ratio(rows, shown[:2], TITLES) if has_curves else None,
        "zero_shot": _zero_shot(experiments, groups),
        "board": None,
    }


def _questions(
    definition: Grid, experiments: Sequence[Experiment], groups: Array, level: float
) -> dict[str, list[dict[str, Any]]]:
    """Question -> its effects; experiments of different labels are not compared."""
    kinds = list(dict.fromkeys(experiment.params.train.labels for experiment in experiments))
    questions = {}
    for labels in kinds:
        alike = [each for each in experiments if each.params.train.labels == labels]
        compared = contrasts.of_grid(definition.layout, alike)
        resampled = None
        if compared and all(experiment.scores for experiment in alike):
            count = alike[0].params.evaluate.bootstrap_samples
            resampled = contrasts.Resampled(alike[0].labels, groups, count)
        suffix = f" ({labels})" if len(kinds) > 1 else ""
        for question, family in _families(definition, compared):
            if family:
                effects = _effects(definition, family, resampled, level)
                questions[_QUESTIONS[question] + suffix] = effects
    return questions


def _families(definition: Grid, compared: Sequence[Contrast]) -> list[tuple[str, list[Contrast]]]:
    first = "generators" if definition.layout == "generators" else "synthetic"

    def question(contrast: Contrast) -> str:
        for arm in (contrast.second[1], contrast.first[1]):
            if arm in _QUESTIONS:
                return arm
        return "controls" if contrast.against_control else first

    names = (first, "controls", "shuffled", "more_real", "scratch", "no_teacher")
    return [(name, [each for each in compared if question(each) == name]) for name in names]


def _states(published: Published, contrast: Contrast) -> bool:
    """Whether a published difference is that of a contrast."""
    (first, _), (second, arm) = contrast.first, contrast.second
    if arm == "mixture" and not published.over.items() <= second.run.overrides.items():
        return False
    return arm_rows.matches(published, first) and not contrast.against_control


def _effects(
    definition: Grid, compared: Sequence[Contrast], resampled: Resampled | None, level: float
) -> list[dict[str, Any]]:
    """One row per metric and contrast: the effect, its verdict and what the paper states."""
    rows = []
    for metric, effects in contrasts.measure(compared, resampled, level).items():
        for contrast, (effect, corrected) in zip(compared, effects, strict=True):
            differences = [
                published.value
                for published in definition.published
                if published.over
                and published.figure == metric
                and published.architecture == contrast.architecture
                and _states(published, contrast)
            ]
            rows.append(
                {
                    "metric": TITLES[metric],
                    "architecture": contrast.architecture,
                    "name": contrast.name,
                    "value": effect.value,
                    "low": effect.low,
                    "high": effect.high,
                    "p": corrected,
                    "comparisons": len(compared),
                    "over_images": resampled is not None,
                    "seeds": effect.seeds,
                    "published": differences[0] if differences else None,
                    "verdict": _verdict(contrast, effect, corrected, 1 - level),
                }
            )
    return rows


def _verdict(contrast: Contrast, effect: Effect, corrected: float, alpha: float) -> str:
    question = (contrast.first[1], contrast.second[1]) == ("mixture", "real")
    higher, lower, neither = (
        ("helps", "harms", "no clear effect")
        if question
        else ("better", "worse", "no clear difference")
    )
    if math.isnan(corrected):
        return "no interval"
    if corrected >= alpha:
        return neither
    return higher if effect.value > 0 else lower


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
