"""Stage `evaluate`: one trained cell on the held-out test split, which is first opened here.

Reads `corpus/` (split test) and `models/classifiers/<cell>/`; writes
`reports/evaluate/<cell>.json` (figures with bootstrap intervals per arm, and mixture minus real
from paired resamples) and `reports/evaluate/<cell>/` with `roc/<arm>.csv` (fpr, tpr),
`predictions.csv` (image_id, label, one probability column per arm) and `sources.csv` (one row per
arm and source). Command: `dermaflux evaluate --architecture vit --seed 0`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaflux import paths, table
from dermaflux.classifiers import bootstrap, evaluation_log, metrics, samples, supervised
from dermaflux.classifiers.mixture import CLASSES
from dermaflux.errors import InputError
from dermaflux.params import Evaluate, Params

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]


def run(params: Params, architecture: str, seed: int) -> None:
    """Score every arm of a cell; all files appear whole."""
    cell = paths.cell(architecture, seed)
    arms = [arm for arm in params.train.arms if (paths.CLASSIFIERS / cell / arm).is_dir()]
    if arms != params.train.arms:
        missing = next(arm for arm in params.train.arms if arm not in arms)
        raise InputError(
            f"{paths.CLASSIFIERS / cell} has no arm {missing!r}; run `dermaflux train "
            f"--architecture {architecture} --seed {seed}`"
        )
    rows, probability, threshold = _score(cell, arms, params.evaluate.batch)
    labels = (rows["label"] == CLASSES[1]).to_numpy().astype(int)
    result = compare(labels, bootstrap.groups(rows), probability, threshold, params.evaluate)
    for arm in arms:
        result[arm]["validation_auc"] = _validation_auc(paths.CLASSIFIERS / cell / arm)
    result["test"] = {"images": len(rows), "malignant": int(labels.sum())}
    _write(cell, rows, labels, probability, threshold, result)
    for arm in arms:
        evaluation_log.log(params, architecture, seed, arm, result[arm], labels, probability[arm])
        figures = result[arm]
        print(
            f"{cell}/{arm}: test AUC {figures['auc']:.3f} "
            f"({figures['auc_low']:.3f} to {figures['auc_high']:.3f}) on {len(rows)} images"
        )


def _score(
    cell: str, arms: Sequence[str], batch: int
) -> tuple[pd.DataFrame, dict[str, Array], dict[str, float]]:
    """Test rows, and each arm's probabilities (N,) and decision threshold."""
    probability, threshold = {}, {}
    rows, images = None, None
    for arm in arms:
        model, config = supervised.load(paths.CLASSIFIERS / cell / arm)
        if images is None or images.pixels.shape[1] != config["image_size"]:
            rows, images = samples.load_split(paths.CORPUS, "test", config["image_size"])
        probability[arm] = supervised.probabilities(model, config, images.pixels, batch)
        threshold[arm] = float(config["threshold"])
    assert rows is not None
    return rows, probability, threshold


def compare(
    labels: Array,
    groups: Array,
    probability: dict[str, Array],
    threshold: dict[str, float],
    settings: Evaluate,
) -> dict[str, dict[str, float]]:
    """Figures per arm with `_low` and `_high`, and `difference` when both arms are there.

    All arms are scored on the same resamples, so the difference is paired.
    """
    once = np.ones((1, len(labels)), np.int32)
    weights = bootstrap.resamples(labels, groups, settings.bootstrap_samples, seed=0)
    result: dict[str, dict[str, float]] = {}
    resampled: dict[str, dict[str, Array]] = {}
    point: dict[str, dict[str, Array]] = {}
    for arm, scores in probability.items():
        arguments = (labels, scores, threshold[arm], settings.specificities)
        point[arm] = metrics.figures(*arguments, once)
        resampled[arm] = metrics.figures(*arguments, weights)
        result[arm] = {"calibration_error": metrics.calibration_error(labels, scores)}
        for name, values in resampled[arm].items():
            _with_interval(
                result[arm], name, float(point[arm][name][0]), values, settings.confidence
            )
    if {"real", "mixture"} <= result.keys():
        result["difference"] = {}
        for name in ("auc", "accuracy"):
            _with_interval(
                result["difference"],
                name,
                float(point["mixture"][name][0] - point["real"][name][0]),
                resampled["mixture"][name] - resampled["real"][name],
                settings.confidence,
            )
    return result


def _with_interval(
    into: dict[str, float], name: str, point: float, values: Array, confidence: float
) -> None:
    into[name] = point
    into[f"{name}_low"], into[f"{name}_high"] = bootstrap.interval(values, confidence)


def by_source(
    rows: pd.DataFrame, labels: Array, probability: dict[str, Array], threshold: dict[str, float]
) -> pd.DataFrame:
    """One row per arm and source: counts, accuracy, and AUC where the source has both classes."""
    import pandas as pd

    found = []
    for arm, scores in probability.items():
        for source in sorted(rows["source"].unique()):
            here = (rows["source"] == source).to_numpy()
            own, called = labels[here], scores[here] >= threshold[arm]
            both = 0 < own.sum() < len(own)
            found.append(
                {
                    "arm": arm,
                    "source": source,
                    "images": len(own),
                    "malignant": int(own.sum()),
                    "accuracy": float((called == own).mean()),
                    "auc": metrics.auc(own, scores[here]) if both else None,
                }
            )
    return pd.DataFrame(found)


def _validation_auc(folder: Path) -> float:
    import pandas as pd

    rows = pd.read_csv(folder / "validation.csv")
    return metrics.auc(
        (rows["label"] == CLASSES[1]).to_numpy().astype(int), rows["probability"].to_numpy()
    )


def _write(
    cell: str,
    rows: pd.DataFrame,
    labels: Array,
    probability: dict[str, Array],
    threshold: dict[str, float],
    result: dict[str, dict[str, float]],
) -> None:
    import pandas as pd

    with table.atomic_folder(paths.EVALUATIONS / cell) as partial:
        (partial / "roc").mkdir()
        for arm, scores in probability.items():
            points = pd.DataFrame(metrics.roc_points(labels, scores), columns=["fpr", "tpr"])
            points.to_csv(partial / "roc" / f"{arm}.csv", index=False)
        rows[["image_id", "label"]].assign(**probability).to_csv(
            partial / "predictions.csv", index=False
        )
        by_source(rows, labels, probability, threshold).to_csv(partial / "sources.csv", index=False)
    table.write_json(paths.EVALUATIONS / f"{cell}.json", result)
