"""Metrics of each group of test images: per source, modality, skin tone, scale and diagnosis.

Pure functions on the test rows and the arms' probabilities. A metric is reported where it rests on
enough independent lesions (images of one lesion count once) and left out with a note otherwise: a
sensitivity over 3 lesions is meaningless, and its bootstrap interval would not show it. Resampling
stays within the group, so an interval is conditional on the group's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from dermaflux.core.arrays import Array
from dermaflux.core.vocabulary import CLASSES
from dermaflux.metrics import binary, multiclass
from dermaflux.params import Evaluate
from dermaflux.statistics import bootstrap
from dermaflux.statistics.comparison import Predictions, rates, with_intervals

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
    arms: Mapping[str, Predictions],
    classes: tuple[str, ...],
    settings: Evaluate,
) -> pd.DataFrame:
    """One row per arm and group, `all` first: arm, grouping, group, images, lesions, malignant,
    each of `FIGURES` with `_low` and `_high`, and a note on what is left out and why.

    `labels` (N,) number the `classes`, `members` (N,) the lesions. Of more than two classes the
    groups have accuracy and calibration error, and the diagnoses their metrics against the rest.
    """
    import pandas as pd

    results = []
    many = any(predictions.probability.ndim == 2 for predictions in arms.values())
    for grouping, group, here in _groups(rows):
        if many and grouping == "diagnosis":
            continue
        weights = bootstrap.resamples(
            labels[here], members[here], settings.bootstrap_samples, seed=0
        )
        figures = _of_many if many else _of_two
        for arm, predictions in arms.items():
            probability = predictions.probability[here]
            of_group = Predictions(probability, predictions.temperature, predictions.threshold)
            values, note = figures(labels[here], members[here], of_group, settings, weights)
            results.append((arm, grouping, group, here, values, note))
    if many:
        results += _against_rest(labels, members, arms, classes, settings)
    malignant = (rows["label"] == "malignant").to_numpy()
    records = [
        {
            "arm": arm,
            "grouping": grouping,
            "group": group,
            "images": int(here.sum()),
            "lesions": len(np.unique(members[here])),
            "malignant": int(malignant[here].sum()),
            **values,
            "note": note,
        }
        for arm, grouping, group, here, values, note in results
    ]
    columns = ["arm", "grouping", "group", "images", "lesions", "malignant"]
    for name in FIGURES:
        columns += [name, f"{name}_low", f"{name}_high"]
    frame = pd.DataFrame(records, columns=[*columns, "note"])
    order = {arm: index for index, arm in enumerate(arms)}
    return frame.sort_values("arm", key=lambda names: names.map(order), kind="stable")


def _groups(rows: pd.DataFrame) -> Iterator[tuple[str, str, Array]]:
    """Grouping, group and its mask (N,) bool; every row is in one group of each grouping."""
    yield "all", "all", np.ones(len(rows), bool)
    for grouping in GROUPINGS:
        values = rows[grouping]
        if grouping == "scale":
            values = values.map(lambda side: None if side != side else f"{side:.0f} px")
        names = values.astype(object).where(values.notna(), _NO_VALUE).astype(str)
        by_length = grouping == "scale"
        order = {name: (name == _NO_VALUE, by_length * len(name), name) for name in names.unique()}
        for group in sorted(order, key=lambda name: order[name]):
            yield grouping, group, (names == group).to_numpy()


def _of_two(
    labels: Array, members: Array, predictions: Predictions, settings: Evaluate, weights: Array
) -> tuple[dict[str, float], str]:
    """Metrics of benign against malignant within one group, and the note."""
    lesions = {name: len(np.unique(members[labels == label])) for label, name in enumerate(CLASSES)}
    enough = {name: count >= settings.minimum_group for name, count in lesions.items()}
    overall = all(lesions.values()) and len(np.unique(members)) >= settings.minimum_group
    defined = {
        "auc": all(enough.values()),
        "accuracy": overall,
        "sensitivity": enough["malignant"],
        "specificity": enough["benign"],
        "f1": all(enough.values()),
        "calibration_error": overall,
    }
    names = [name for name, enough_lesions in defined.items() if enough_lesions]
    scores = predictions.probability

    def figures(rows: Array) -> dict[str, Array]:
        values = binary.threshold_figures(labels, scores, predictions.threshold, rows)
        if "auc" in names:
            values["auc"] = binary.bootstrap_auc(labels, scores, rows)
        return {name: values[name] for name in names}

    notes = [
        f"no {name} images" if not count else _too_few(count, name, settings)
        for name, count in lesions.items()
        if not enough[name]
    ]
    return _estimates(figures, weights, settings, rates(labels, members)), "; ".join(notes)


def _of_many(
    labels: Array, members: Array, predictions: Predictions, settings: Evaluate, weights: Array
) -> tuple[dict[str, float], str]:
    """Accuracy and calibration error of K diagnoses within one group, and the note."""
    count = len(np.unique(members))
    if count < settings.minimum_group:
        return {}, _too_few(count, "", settings)

    def figures(rows: Array) -> dict[str, Array]:
        values = multiclass.overall(labels, predictions.probability, rows)
        return {name: values[name] for name in ("accuracy", "calibration_error")}

    return _estimates(figures, weights, settings, {"accuracy": count}), ""


def _against_rest(
    labels: Array,
    members: Array,
    arms: Mapping[str, Predictions],
    classes: tuple[str, ...],
    settings: Evaluate,
) -> list[tuple[str, str, str, Array, dict[str, float], str]]:
    """Each diagnosis against all others, on the whole test set; absent ones have a row too."""
    weights = bootstrap.resamples(labels, members, settings.bootstrap_samples, seed=0)
    results = []
    for k, name in enumerate(classes):
        here = labels == k
        count = len(np.unique(members[here]))
        for arm, predictions in arms.items():
            values: dict[str, float] = {}
            note = "no test images" if not count else _too_few(count, "", settings)
            if count >= settings.minimum_group:
                note = ""

                def figures(
                    rows: Array, probability: Array = predictions.probability, k: int = k
                ) -> dict[str, Array]:
                    auc = binary.bootstrap_auc(labels == k, probability[:, k], rows)
                    return {"auc": auc, **multiclass.class_figures(labels, probability, k, rows)}

                values = _estimates(figures, weights, settings, rates(here.astype(int), members))
            results.append((arm, "diagnosis", name, here, values, note))
    return results


def _estimates(
    figures: Callable[[Array], dict[str, Array]],
    weights: Array,
    settings: Evaluate,
    lesions: Mapping[str, int],
) -> dict[str, float]:
    once = np.ones((1, weights.shape[1]), np.int32)
    return with_intervals(figures(once), figures(weights), settings.confidence, lesions)


def _too_few(count: int, name: str, settings: Evaluate) -> str:
    lesions = f"{name} lesion".strip() + ("s" if count != 1 else "")
    return f"too few to say: {count} {lesions}, {settings.minimum_group} needed"
