"""The MLflow run of an evaluated arm: test metrics, figures, the images, its training run.

`log` is what `evaluate` calls; it decides none of the stage's files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux import paths
from dermaflux.classifiers.logging import mlflow_runs, mlflow_view, plots
from dermaflux.core.arrays import Array
from dermaflux.core.files import read_json, write_json
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

    `labels` (N,) are class numbers, `probability` (N,) or (N, K) uncalibrated, and `figures`
    the arm's entry in `reports/evaluate/<cell>.json`.
    """
    cell = paths.cell(architecture, seed)
    folder = paths.CLASSIFIERS / cell / arm
    from dermaflux.classifiers.model import network

    config = read_json(folder / "config.json", network.WRITER, "n_real")
    parameters = mlflow_runs.arm_parameters(params, architecture, seed, arm, config["n_real"])
    parent = mlflow_runs.parent(params, parameters, "evaluate")
    name = mlflow_runs.name(parameters)
    classes = config.get("classes", list(CLASSES))
    images = mlflow_runs.dataset("corpus test", paths.CORPUS, labels, "testing", classes)
    with runs.start(
        mlflow_runs.TESTING,
        name,
        parameters,
        [paths.CORPUS, folder],
        parent=parent,
        datasets=[images],
        stage="evaluate",
    ) as logged:
        logged.metrics(mlflow_runs.metric_names(figures))
        logged.tag_writer("train_run", mlflow_runs.TRAINING, folder)
        logged.outputs(paths.EVALUATIONS / f"{cell}.json", paths.EVALUATIONS / cell)
        for title, figure in _figures(config, classes, labels, probability, name).items():
            logged.figure(figure, f"{title}.png")
        with tempfile.TemporaryDirectory() as scratch:
            write_json(Path(scratch) / "figures.json", dict(figures))
            logged.artifact(Path(scratch) / "figures.json")
        logged.attempt("view", lambda client: mlflow_view.offer(client, logged.experiment_id))


def _figures(
    config: Mapping[str, Any],
    classes: Sequence[str],
    labels: Array,
    probability: Array,
    name: str,
) -> dict[str, Figure]:
    temperature = float(config.get("temperature", 1.0))
    if probability.ndim == 1:
        threshold = float(config["threshold"])
        predicted = (probability >= threshold).astype(int)
        title = f"{name}, threshold {100 * threshold:.3g} %"
    else:
        predicted, title = probability.argmax(axis=1), f"{name}, likeliest class"
    figures = {
        "confusion": plots.confusion(labels, predicted, classes, title),
        "reliability": plots.reliability(labels, probability, temperature, name),
        "roc": plots.roc(labels, probability, classes, name),
    }
    if probability.ndim == 1:
        tempered = calibration.apply_temperature(probability, temperature)
        figures["decision"] = plots.decision(labels, tempered, name)
    return figures
