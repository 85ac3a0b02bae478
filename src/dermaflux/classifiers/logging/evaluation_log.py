"""The MLflow run of an evaluated arm: test figures, pictures, the images, its training run.

`log` is what `evaluate` calls; it decides none of the stage's files.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux import paths
from dermaflux.classifiers.logging import mlflow_runs, mlflow_view, plots
from dermaflux.core.arrays import Array
from dermaflux.core.files import write_json
from dermaflux.core.vocabulary import CLASSES
from dermaflux.metrics import calibration
from dermaflux.params import Params
from dermaflux.tracking import runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def log(
    params: Params,
    architecture: str,
    seed: int,
    arm: str,
    figures: Mapping[str, Any],
    labels: Array,
    probability: Array,
) -> None:
    """One run per arm, under the parent of its seeds.

    `labels` (N,) are class numbers, `probability` (N,) or (N, K) the network's own, and `figures`
    the arm's entry in `reports/evaluate/<cell>.json`.
    """
    cell = paths.cell(architecture, seed)
    folder = paths.CLASSIFIERS / cell / arm
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    parameters = mlflow_runs.arm_parameters(params, architecture, seed, arm, config["n_real"])
    parent = mlflow_runs.parent(params, parameters, "evaluate")
    name = mlflow_runs.name(parameters)
    classes = config.get("classes", list(CLASSES))
    tested = mlflow_runs.dataset("corpus test", paths.CORPUS, labels, "testing", classes)
    with runs.start(
        mlflow_runs.TESTING,
        name,
        parameters,
        [paths.CORPUS, folder],
        parent=parent,
        datasets=[tested],
        stage="evaluate",
    ) as logged:
        logged.metrics(mlflow_runs.metric_names(figures))
        written = runs.dvc_hash(folder)
        trained = runs.writer(logged.client, mlflow_runs.TRAINING, folder, written)
        if trained is not None:
            logged.tag("train_run", trained)
        logged.outputs(paths.EVALUATIONS / f"{cell}.json", paths.EVALUATIONS / cell)
        for picture, drawn in _pictures(config, classes, labels, probability, name).items():
            logged.figure(drawn, f"{picture}.png")
        with tempfile.TemporaryDirectory() as scratch:
            write_json(Path(scratch) / "figures.json", dict(figures))
            logged.artifact(Path(scratch) / "figures.json")
        mlflow_view.offer(logged.client, logged.experiment_id)


def _pictures(
    config: Mapping[str, Any],
    classes: Sequence[str],
    labels: Array,
    probability: Array,
    name: str,
) -> dict[str, Figure]:
    temperature = float(config.get("temperature", 1.0))
    if probability.ndim == 1:
        threshold = float(config["threshold"])
        called = (probability >= threshold).astype(int)
        cut = f"{name}, malignant from {100 * threshold:.3g} % on"
    else:
        called, cut = probability.argmax(axis=1), f"{name}, likeliest class"
    drawn = {
        "confusion": plots.confusion(labels, called, classes, cut),
        "reliability": plots.reliability(labels, probability, temperature, name),
        "roc": plots.roc(labels, probability, classes, name),
    }
    if probability.ndim == 1:
        tempered = calibration.apply_temperature(probability, temperature)
        drawn["decision"] = plots.decision(labels, tempered, name)
    return drawn
