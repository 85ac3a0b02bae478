"""The MLflow run of an evaluated arm: test figures, pictures, the images, its training run.

`log` is what `evaluate` calls; it decides none of the stage's files.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaflux import paths, table, tracking
from dermaflux.classifiers import arm_runs, calibration, evaluation_figures, saved_view
from dermaflux.params import Params

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]


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
    parameters = arm_runs.arm_parameters(params, architecture, seed, arm, config["n_real"])
    parent = arm_runs.parent(params, parameters, "evaluate")
    name = arm_runs.name(parameters)
    classes = config.get("classes", ["benign", "malignant"])
    tested = arm_runs.dataset("corpus test", paths.CORPUS, labels, "testing", classes)
    with tracking.start(
        arm_runs.TESTING,
        name,
        parameters,
        [paths.CORPUS, folder],
        parent=parent,
        datasets=[tested],
        stage="evaluate",
    ) as logged:
        logged.metrics(arm_runs.metric_names(figures))
        written = tracking.dvc_hash(folder)
        trained = tracking.writer(logged.client, arm_runs.TRAINING, folder, written)
        if trained is not None:
            logged.tag("train_run", trained)
        logged.outputs(paths.EVALUATIONS / f"{cell}.json", paths.EVALUATIONS / cell)
        for picture, drawn in _pictures(config, classes, labels, probability, name).items():
            logged.figure(drawn, f"{picture}.png")
        with tempfile.TemporaryDirectory() as scratch:
            table.write_json(Path(scratch) / "figures.json", dict(figures))
            logged.artifact(Path(scratch) / "figures.json")
        saved_view.offer(logged.client, logged.experiment_id)


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
        "confusion": evaluation_figures.confusion(labels, called, classes, cut),
        "reliability": evaluation_figures.reliability(labels, probability, temperature, name),
        "roc": evaluation_figures.roc(labels, probability, classes, name),
    }
    if probability.ndim == 1:
        tempered = calibration.tempered(probability, temperature)
        drawn["decision"] = evaluation_figures.decision(labels, tempered, name)
    return drawn
