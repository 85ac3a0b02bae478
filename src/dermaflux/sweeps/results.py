"""Command `results`: the finished experiments of a grid, laid out as the paper has them.

Reads `grids/<name>.yaml`, the experiments in git and DVC's cache, and of `corpus/` which test
images belong together; writes `reports/grids/<name>/` with `index.html` (self-contained),
`curves.svg`, `roc.svg`, `table.csv` and `effects.json`. Command: `dermaflux results figure4`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux import paths
from dermaflux.core.files import atomic_folder, write_json
from dermaflux.errors import InputError
from dermaflux.params import ENLARGED
from dermaflux.reporting import pages
from dermaflux.reporting.plots import data_uri
from dermaflux.statistics import seed_means
from dermaflux.statistics.effects import Effect
from dermaflux.sweeps import contrasts, curves, dvc_experiments, grid, outcomes
from dermaflux.sweeps.contrasts import Contrast
from dermaflux.sweeps.grid import Grid, Published
from dermaflux.sweeps.outcomes import Experiment

if TYPE_CHECKING:
    from dermaflux.core.arrays import Array
SHOWN = {
    "auc": "ROC-AUC",
    "accuracy": "Accuracy",
    "mauc": "mAUC",
    "macro_f1": "Macro F1",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
}
_QUESTIONS = {
    "generators": "Which generator's images serve better?",
    "synthetic": "Do synthetic images help?",
    "controls": "More than repeating or augmenting real images does?",
}
_CURVES = ("ratios", "low_data")


def run(name: str) -> None:
    """Collect what is finished, name what is not, and write the page."""
    definition = grid.load(name)
    runs = grid.runs(name, definition)
    baseline = dvc_experiments.baseline(runs)
    finished = dvc_experiments.experiments(baseline)
    experiments = [outcomes.read(one, finished[one.name]) for one in runs if one.name in finished]
    missing = [one.name for one in runs if one.name not in finished]
    groups = _same_test(experiments)
    page = _page(name, definition, experiments, groups, missing, baseline)
    for absent in missing:
        print(f"{absent}: not finished, left out")
    for question, rows in page["families"].items():
        print(question)
        for row in rows:
            print(
                f"  {row['figure']} of {row['architecture']}, {row['name']}: {row['value']:+.3f} "
                f"({row['low']:+.3f} to {row['high']:+.3f}), p {row['p']:.3g}: {row['says']}"
            )
    target = paths.GRIDS / name
    _write(target, page)
    print(f"results: {target / 'index.html'} ({len(experiments)} of {len(runs)} experiments)")


def _same_test(experiments: Sequence[Experiment]) -> Array:
    """(N,) group numbers of the test images; raise `InputError` unless all share one test set."""
    first = experiments[0]
    for one in experiments:
        if list(one.image_ids) != list(first.image_ids):
            raise InputError(
                f"{one.run.name} and {first.run.name} were tested on different images, so they "
                "cannot be compared; queue the grid again from one commit"
            )
    return seed_means.lesions(first.image_ids)


def _page(
    name: str,
    definition: Grid,
    experiments: Sequence[Experiment],
    groups: Array,
    missing: Sequence[str],
    baseline: str,
) -> dict[str, Any]:
    settings = experiments[0].params.evaluate
    level = settings.confidence
    asked = contrasts.of_grid(definition.layout, experiments)
    binary = all(one.scores for one in experiments)
    resampled = (
        contrasts.Resampled(experiments[0].labels, groups, settings.bootstrap_samples)
        if binary and asked
        else None
    )
    rows = _rows(definition, experiments, level)
    shown = [figure for figure in SHOWN if any(figure in row for row in rows)]
    return {
        "name": name,
        "definition": definition,
        "baseline": baseline,
        "missing": missing,
        "level": level,
        "images": len(experiments[0].image_ids),
        "rows": rows,
        "shown": {figure: SHOWN[figure] for figure in shown},
        "families": {
            _QUESTIONS[question]: _effects(definition, family, resampled, level)
            for question, family in _families(definition, asked)
            if family
        },
        "binary": binary,
        "curves": curves.curves(rows, shown[:2], SHOWN) if definition.layout in _CURVES else None,
        "zero_shot": _zero_shot(experiments, groups),
    }


def _families(definition: Grid, asked: Sequence[Contrast]) -> list[tuple[str, list[Contrast]]]:
    first = "generators" if definition.layout == "generators" else "synthetic"
    return [
        (first, [one for one in asked if not one.against_control]),
        ("controls", [one for one in asked if one.against_control]),
    ]


def _rows(
    definition: Grid, experiments: Sequence[Experiment], level: float
) -> list[dict[str, Any]]:
    """One row per experiment, architecture and arm: means over seeds with t intervals."""
    import numpy as np

    from dermaflux.statistics import effects

    rows = []
    for one in experiments:
        for (architecture, arm), per_seed in one.figures.items():
            added = one.n_synthetic if arm in ENLARGED else 0
            synthetic = added if arm == "mixture" else 0
            row: dict[str, Any] = {
                "experiment": one.run.name,
                "architecture": architecture,
                "arm": arm,
                "n_real": one.params.n_real if one.params.real_fraction is None else None,
                "real_fraction": one.params.real_fraction,
                "n_synthetic": synthetic,
                "ratio": added / one.params.n_real if one.params.n_real else math.inf,
                "generator": one.params.generator if synthetic else "",
                "seeds": len(per_seed),
            }
            for figure in SHOWN:
                if all(figure in figures_ for figures_ in per_seed):
                    values = np.array([float(f[figure]) for f in per_seed])
                    row[figure] = effects.effect(values, np.empty(0), level)
            stated = [
                published
                for published in definition.published
                if not published.over
                and _matches(published, one)
                and published.architecture == architecture
                and arm == ("mixture" if one.n_synthetic else "real")
            ]
            row["published"] = {published.figure: published.value for published in stated}
            rows.append(row)
    return rows


def _matches(published: Published, one: Experiment) -> bool:
    return published.at.items() <= one.run.overrides.items()


def _effects(
    definition: Grid, asked: Sequence[Contrast], resampled: Any, level: float
) -> list[dict[str, Any]]:
    found = []
    for figure, measured_ in contrasts.measure(asked, resampled, level).items():
        for contrast, (effect, corrected) in zip(asked, measured_, strict=True):
            stated = [
                published.value
                for published in definition.published
                if published.over
                and published.figure == figure
                and published.architecture == contrast.architecture
                and _matches(published, contrast.first[0])
            ]
            found.append(
                {
                    "figure": SHOWN[figure],
                    "architecture": contrast.architecture,
                    "name": contrast.name,
                    "value": effect.value,
                    "low": effect.low,
                    "high": effect.high,
                    "p": corrected,
                    "comparisons": len(asked),
                    "seeds": effect.seeds,
                    "published": stated[0] if stated else None,
                    "says": _says(contrast, effect, corrected, 1 - level),
                }
            )
    return found


def _says(contrast: Contrast, effect: Effect, corrected: float, alpha: float) -> str:
    against_real = contrast.second[1] == "real"
    up, down, neither = (
        ("helps", "harms", "no clear effect")
        if against_real
        else ("better", "worse", "no clear difference")
    )
    if math.isnan(corrected):
        return "no interval"
    if corrected >= alpha:
        return neither
    return up if effect.value > 0 else down


def _zero_shot(experiments: Iterable[Experiment], groups: Array) -> dict[str, Any] | None:
    """The best trained classifier by validation against every zero-shot model."""
    scored = [one for one in experiments if one.zero_shot]
    if not scored:
        return None
    one = scored[0]
    key, place = contrasts.best(one)
    trained = one.scores[key][place]
    compared = contrasts.against_zero_shot(one.labels, trained, one.zero_shot, groups)
    best = f"{key[0]}-{one.params.train.seeds[place]}/{key[1]}"
    shown = {best: trained, **one.zero_shot}
    return {
        "best": best,
        "auc": float(one.figures[key][place]["auc"]),
        "accuracy": float(one.figures[key][place]["accuracy"]),
        "models": [
            {
                "name": name,
                "auc": float(one.figures[key][place]["auc"]) - comparison.difference,
                "accuracy": float(((one.zero_shot[name] >= 0.5) == one.labels).mean()),
                "difference": comparison.difference,
                "error": comparison.standard_error,
                "p": corrected,
            }
            for name, (comparison, corrected) in compared.items()
        ],
        "roc": curves.roc(one.labels.astype(int), shown),
    }


def _write(target: Path, page: dict[str, Any]) -> None:
    import pandas as pd

    environment = pages.environment(Path(__file__).parent)
    environment.filters["uri"] = data_uri
    flat = []
    for row in page["rows"]:
        plain = {key: value for key, value in row.items() if key not in ("published", *SHOWN)}
        for figure in SHOWN:
            if figure in row:
                plain[figure] = row[figure].value
                plain[f"{figure}_low"], plain[f"{figure}_high"] = row[figure].low, row[figure].high
        plain |= {f"published_{figure}": value for figure, value in row["published"].items()}
        flat.append(plain)
    keys = ("families", "missing", "baseline", "level", "images")
    with atomic_folder(target) as partial:
        pd.DataFrame(flat).to_csv(partial / "table.csv", index=False)
        write_json(partial / "effects.json", {key: page[key] for key in keys})
        if page["curves"]:
            (partial / "curves.svg").write_bytes(page["curves"])
        if page["zero_shot"]:
            (partial / "roc.svg").write_bytes(page["zero_shot"]["roc"])
        text = environment.get_template("results.html").render(**page)
        (partial / "index.html").write_text(text, encoding="utf-8")
