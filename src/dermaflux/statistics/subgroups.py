"""Figures of each group of test images: per source, modality, skin tone, scale and diagnosis.

Pure functions on the test rows and the arms' probabilities. A figure is given where it rests on
enough independent lesions (images of one lesion count once) and left out with a note where not: a
sensitivity of 3 lesions says nothing, and its bootstrap interval would not say so. Resamples are
drawn within the group, so an interval is conditional on the group's size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaflux.core.arrays import Array
from dermaflux.metrics import binary, multiclass
from dermaflux.params import Evaluate
from dermaflux.statistics import bootstrap
from dermaflux.statistics.comparison import Scored, rates, with_intervals

if TYPE_CHECKING:
    import pandas as pd

GROUPINGS = ("source", "modality", "skin_tone", "scale", "diagnosis")
"""Columns of the table."""
FIGURES = ("auc", "accuracy", "sensitivity", "specificity", "f1", "calibration_error")
_NO_VALUE = "not given"


def table(
    rows: pd.DataFrame,
    labels: Array,
    members: Array,
    arms: Mapping[str, Scored],
    classes: tuple[str, ...],
    settings: Evaluate,
) -> pd.DataFrame:
    """One row per arm and group, `all` first: arm, grouping, group, images, lesions, malignant,
    each of `FIGURES` with `_low` and `_high`, and a note on what is left out.

    `labels` (N,) number the `classes`, `members` (N,) the lesions. Of more than two classes the
    groups have accuracy and calibration error, and the diagnoses their figures against the rest.
    """
    import pandas as pd

    found = []
    many = any(scored.probability.ndim == 2 for scored in arms.values())
    for grouping, group, here in _groups(rows):
        if many and grouping == "diagnosis":
            continue
        weights = bootstrap.resamples(
            labels[here], members[here], settings.bootstrap_samples, seed=0
        )
        figures = _of_many if many else _of_two
        for arm, scored in arms.items():
            inside = (labels[here], members[here], scored, here)
            given, note = figures(*inside, settings, weights)
            found.append((arm, grouping, group, here, given, note))
    if many:
        found += _against_rest(labels, members, arms, classes, settings)
    malignant = (rows["label"] == "malignant").to_numpy()
    records = [
        {
            "arm": arm,
            "grouping": grouping,
            "group": group,
            "images": int(here.sum()),
            "lesions": len(np.unique(members[here])),
            "malignant": int(malignant[here].sum()),
            **given,
            "note": note,
        }
        for arm, grouping, group, here, given, note in found
    ]
    columns = ["arm", "grouping", "group", "images", "lesions", "malignant"]
    for name in FIGURES:
        columns += [name, f"{name}_low", f"{name}_high"]
    result = pd.DataFrame(records, columns=[*columns, "note"])
    order = {arm: place for place, arm in enumerate(arms)}
    return result.sort_values("arm", key=lambda names: names.map(order), kind="stable")


def _groups(rows: pd.DataFrame) -> Iterator[tuple[str, str, Array]]:
    """Grouping, group and which rows (N,) bool are in it; every row is in one group of each."""
    yield "all", "all", np.ones(len(rows), bool)
    for grouping in GROUPINGS:
        values = rows[grouping]
        if grouping == "scale":
            values = values.map(lambda side: None if side != side else f"{side:.0f} px")
        named = values.astype(object).where(values.notna(), _NO_VALUE).astype(str)
        by_length = grouping == "scale"
        order = {name: (name == _NO_VALUE, by_length * len(name), name) for name in named.unique()}
        for group in sorted(order, key=lambda name: order[name]):
            yield grouping, group, (named == group).to_numpy()


def _of_two(
    labels: Array, members: Array, scored: Scored, here: Array, settings: Evaluate, weights: Array
) -> tuple[dict[str, float], str]:
    """Figures of benign against malignant inside one group, and the note."""
    lesions = {
        name: len(np.unique(members[labels == side]))
        for side, name in ((0, "benign"), (1, "malignant"))
    }
    enough = {name: count >= settings.minimum_group for name, count in lesions.items()}
    overall = all(lesions.values()) and len(np.unique(members)) >= settings.minimum_group
    needs = {
        "auc": all(enough.values()),
        "accuracy": overall,
        "sensitivity": enough["malignant"],
        "specificity": enough["benign"],
        "f1": all(enough.values()),
        "calibration_error": overall,
    }
    wanted = [name for name, met in needs.items() if met]
    scores = scored.probability[here]

    def figures(rows: Array) -> dict[str, Array]:
        values = binary.threshold_figures(labels, scores, scored.threshold, rows)
        if "auc" in wanted:
            values["auc"] = binary.bootstrap_auc(labels, scores, rows)
        return {name: values[name] for name in wanted}

    notes = [
        f"no {name} images" if not count else _too_few(count, name, settings)
        for name, count in lesions.items()
        if not enough[name]
    ]
    return _given(figures, weights, settings, rates(labels, members)), "; ".join(notes)


def _of_many(
    labels: Array, members: Array, scored: Scored, here: Array, settings: Evaluate, weights: Array
) -> tuple[dict[str, float], str]:
    """Accuracy and calibration error of K diagnoses inside one group, and the note."""
    count = len(np.unique(members))
    if count < settings.minimum_group:
        return {}, _too_few(count, "", settings)
    probability = scored.probability[here]

    def figures(rows: Array) -> dict[str, Array]:
        values = multiclass.overall(labels, probability, rows)
        return {name: values[name] for name in ("accuracy", "calibration_error")}

    return _given(figures, weights, settings, {"accuracy": count}), ""


def _against_rest(
    labels: Array,
    members: Array,
    arms: Mapping[str, Scored],
    classes: tuple[str, ...],
    settings: Evaluate,
) -> list[tuple[str, str, str, Array, dict[str, float], str]]:
    """Each diagnosis against all others, on the whole test set; absent ones are named."""
    weights = bootstrap.resamples(labels, members, settings.bootstrap_samples, seed=0)
    found = []
    for number, name in enumerate(classes):
        own = labels == number
        count = len(np.unique(members[own]))
        for arm, scored in arms.items():
            given: dict[str, float] = {}
            note = "no test images" if not count else _too_few(count, "", settings)
            if count >= settings.minimum_group:
                note = ""

                def figures(
                    rows: Array, scored: Scored = scored, number: int = number
                ) -> dict[str, Array]:
                    values = multiclass.class_figures(labels, scored.probability, number, rows)
                    scores = scored.probability[:, number]
                    return {"auc": binary.bootstrap_auc(labels == number, scores, rows), **values}

                given = _given(figures, weights, settings, rates(own.astype(int), members))
            found.append((arm, "diagnosis", name, own, given, note))
    return found


def _given(
    figures: Any, weights: Array, settings: Evaluate, over: Mapping[str, int]
) -> dict[str, float]:
    once = np.ones((1, weights.shape[1]), np.int32)
    return with_intervals(figures(once), figures(weights), settings.confidence, over)


def _too_few(count: int, name: str, settings: Evaluate) -> str:
    what = f"{name} lesion".strip() + ("s" if count != 1 else "")
    return f"too few to say: {count} {what}, {settings.minimum_group} needed"
