"""Stage `evaluate`: one trained cell on the held-out test split, first opened here for it.

Reads `corpus/` (split test) and `models/classifiers/<cell>/`; writes
`reports/evaluate/<cell>.json` (per arm figures with bootstrap intervals, beside them the accuracy
of always predicting the most frequent class and what source, scale and facts of the file alone
score (`classifiers.data.known_facts`), every arm minus real from paired resamples and the
DeLong test, and under `shortages` what the training split was too small for) and
`reports/evaluate/<cell>/` with `predictions.csv`
(image_id, label, one probability column per arm; of diagnoses one per arm and class),
`groups.csv` (one row per arm and group of images), `roc/<arm>.csv` (fpr, tpr),
`reliability/<arm>.csv` (uncalibrated and calibrated) and `decision/<arm>.csv` (net benefit of
the calibrated probabilities). Command: `dermaflux evaluate --architecture vit --seed 0`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaflux import paths
from dermaflux.classifiers.data import known_facts, real_draws, samples
from dermaflux.classifiers.logging import evaluation_log, mlflow_runs
from dermaflux.classifiers.model import network
from dermaflux.core import table
from dermaflux.core.arrays import Array
from dermaflux.core.files import atomic_folder, damaged, read_csv, write_json
from dermaflux.core.hashing import folder_digest
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.metrics import binary, calibration, decision_curve, multiclass
from dermaflux.params import Params
from dermaflux.statistics import bootstrap, comparison, subgroups
from dermaflux.statistics.comparison import Predictions
from dermaflux.tracking import runs, store

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class CellScores:
    """The test images that have one of the classes, and the scores of every arm."""

    rows: pd.DataFrame
    labels: Array
    """(N,) class numbers."""
    classes: tuple[str, ...]
    arms: dict[str, Predictions]

    @property
    def binary(self) -> bool:
        """Whether the classes are benign and malignant."""
        return self.classes == CLASSES


def run(params: Params, architecture: str, seed: int) -> None:
    """Score every arm of a cell; all files appear whole."""
    cell = paths.cell(architecture, seed)
    wanted = params.training(architecture).arms
    shortages = real_draws.read(paths.CLASSIFIERS / cell)
    arms = [arm for arm in wanted if (paths.CLASSIFIERS / cell / arm).is_dir()]
    for missing in [arm for arm in wanted if arm not in arms and arm not in shortages]:
        stage = "distill" if architecture in params.distill.students else "train"
        raise InputError(
            f"{paths.CLASSIFIERS / cell} has no arm {missing!r}; run `dermaflux {stage} "
            f"--architecture {architecture} --seed {seed}`"
        )
    runs.connect()  # a store that cannot be used is told before the work, not after it
    store.require_writable(mlflow_runs.TESTING)
    scores = _score(cell, arms, params.evaluate.batch)
    members = bootstrap.groups(scores.rows)
    result = comparison.compare(scores.labels, members, scores.arms, params.evaluate)
    result["test"] = _counts(scores)
    if shortages:
        result["shortages"] = shortages
    for arm in arms:
        result[arm] |= _validation(paths.CLASSIFIERS / cell / arm, scores.classes)
        result[arm]["majority_accuracy"] = result["test"]["majority_accuracy"]
    beside = known_facts.figures(params, seed, arms, scores.rows)
    for arm, known in beside.items():
        result[arm] |= known
    groups = subgroups.table(
        scores.rows, scores.labels, members, scores.arms, scores.classes, params.evaluate
    )
    write(cell, scores, groups, result)
    headline = "auc" if scores.binary else "mauc"
    for arm, scored in scores.arms.items():
        evaluation_log.log(
            params, architecture, seed, arm, result[arm], scores.labels, scored.probability
        )
        figures = result[arm]
        low, high = figures[f"{headline}_low"], figures[f"{headline}_high"]
        print(
            f"{cell}/{arm}: test {'' if scores.binary else 'macro '}AUC {figures[headline]:.3f} "
            f"({low:.3f} to {high:.3f}) on {len(scores.rows)} images, accuracy "
            f"{figures['accuracy']:.3f} (of the most frequent class "
            f"{figures['majority_accuracy']:.3f})"
        )
    for line in known_facts.lines(cell, beside[arms[0]]) if beside else ():
        print(line)


def _score(cell: str, arms: Sequence[str], batch: int) -> CellScores:
    """Every arm on the test images; images are decoded once for arms of one size.

    Arms of the same images, such as `more_real` and a size of `train.curve`, are one classifier.
    """
    by_arm: dict[str, Predictions] = {}
    by_content: dict[str, Predictions] = {}
    rows, images, classes = None, None, CLASSES
    for arm in arms:
        content = folder_digest(paths.CLASSIFIERS / cell / arm)
        if content in by_content:
            by_arm[arm] = by_content[content]
            continue
        model, config = network.load(paths.CLASSIFIERS / cell / arm)
        if images is None or images.pixels.shape[1] != config["image_size"]:
            classes = tuple(config["classes"])
            rows, images = samples.load_split(paths.CORPUS, "test", config["image_size"], classes)
        if tuple(config["classes"]) != classes:
            raise InputError(
                f"{cell}/{arm} has {len(config['classes'])} classes and {cell}/{arms[0]} "
                f"{len(classes)}; run `dvc repro` so that the arms agree"
            )
        by_arm[arm] = by_content[content] = Predictions(
            network.probabilities(model, config, images.pixels, batch),
            float(config.get("temperature", 1.0)),
            float(config["threshold"] or 0.0),
        )
    assert rows is not None
    assert images is not None
    return CellScores(rows, images.labels.astype(int), classes, by_arm)


def _counts(scores: CellScores) -> dict[str, Any]:
    """How many test images there are, and which diagnoses are not part of the figures."""
    majority = multiclass.majority_accuracy(scores.labels)
    counts: dict[str, Any] = {"images": len(scores.rows), "majority_accuracy": majority}
    if scores.binary:
        return {**counts, "malignant": int(scores.labels.sum())}
    every = table.metadata(paths.CORPUS, ["diagnosis"], "test")["diagnosis"]
    other = every[~every.isin(scores.classes)].fillna("not given").value_counts()
    present = np.bincount(scores.labels, minlength=len(scores.classes))
    return {
        **counts,
        "per_class": {name: int(n) for name, n in zip(scores.classes, present, strict=True)},
        "absent": [name for name, n in zip(scores.classes, present, strict=True) if not n],
        "left_out": {str(name): int(count) for name, count in other.items()},
    }


def _validation(folder: Path, classes: tuple[str, ...]) -> dict[str, float]:
    """The figure the arm's epoch was selected by, from its validation predictions."""
    numbers = ["probability"] if classes == CLASSES else list(classes)
    rows = read_csv(folder / "validation.csv", network.WRITER, numbers, ["label"])
    numbered = rows["label"].map({name: number for number, name in enumerate(classes)})
    if numbered.isna().any() or numbered.nunique() < 2:
        problem = "it holds other labels than those of the classifier, or only one"
        raise damaged(folder / "validation.csv", problem, network.WRITER)
    labels = numbered.to_numpy()
    if classes == CLASSES:
        return {"validation_auc": binary.auc(labels, rows["probability"].to_numpy())}
    return {"validation_mauc": multiclass.mauc(labels, rows[list(classes)].to_numpy())}


def write(
    cell: str, scores: CellScores, groups: pd.DataFrame, result: Mapping[str, Mapping[str, Any]]
) -> None:
    """The files of a cell; the folder appears whole, then the figures."""
    import pandas as pd

    def save(content: Any, *name: str) -> None:
        path = partial.joinpath(*name)
        path.parent.mkdir(exist_ok=True)
        pd.DataFrame(content).to_csv(path, index=False)

    with atomic_folder(paths.EVALUATIONS / cell) as partial:
        for arm, scored in scores.arms.items():
            save(_roc(scores, scored), "roc", f"{arm}.csv")
            save(_reliability(scores, scored), "reliability", f"{arm}.csv")
            if scores.binary:
                curve = decision_curve.curve(scores.labels, scored.calibrated)
                save(curve, "decision", f"{arm}.csv")
        (partial / "decision").mkdir(exist_ok=True)
        save(predictions(scores), "predictions.csv")
        save(groups, "groups.csv")
    write_json(paths.EVALUATIONS / f"{cell}.json", result)


def predictions(scores: CellScores) -> pd.DataFrame:
    """image_id, label (the class), and `<arm>`, or of diagnoses `<arm>/<class>`."""
    import pandas as pd

    columns: dict[str, Any] = {
        "image_id": scores.rows["image_id"],
        "label": [scores.classes[label] for label in scores.labels],
    }
    for arm, scored in scores.arms.items():
        if scores.binary:
            columns[arm] = scored.probability
        else:
            by_class = zip(scores.classes, scored.probability.T, strict=True)
            columns |= {f"{arm}/{name}": probability for name, probability in by_class}
    return pd.DataFrame(columns)


def _roc(scores: CellScores, scored: Predictions) -> pd.DataFrame:
    """fpr and tpr; of diagnoses the mean of the one-versus-rest curves at 100 steps."""
    import pandas as pd

    if scores.binary:
        points = binary.roc_points(scores.labels, scored.probability)
        return pd.DataFrame(points, columns=["fpr", "tpr"])
    grid = np.linspace(0, 1, 101)
    curves = [
        np.interp(grid, *binary.roc_points(scores.labels == k, scored.probability[:, k], 10**9).T)
        for k in np.unique(scores.labels)
    ]
    return pd.DataFrame({"fpr": grid, "tpr": np.mean(curves, axis=0)})


def _reliability(scores: CellScores, scored: Predictions) -> pd.DataFrame:
    """Bins that hold images, first of uncalibrated probabilities, then of calibrated ones."""
    import pandas as pd

    parts = []
    for calibrated, values in enumerate((scored.probability, scored.calibrated)):
        curve = calibration.reliability(scores.labels, values)
        parts.append(pd.DataFrame({"calibrated": bool(calibrated), **curve}))
    return pd.concat(parts)
