"""How the MLflow runs of a classifier are named, grouped and compared, in both its stages.

A run is one arm of one architecture and seed: in the MLflow experiment `training` it holds the
curves, in `classifier` the figures on the test split. Its parent there stands for all seeds. Pure:
reads parameters, writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dermaflux.core.arrays import Array
from dermaflux.core.checkpoints import fingerprint
from dermaflux.core.hashing import rank
from dermaflux.core.vocabulary import CLASSES
from dermaflux.params import MIXED, REPEATING, Params, arms
from dermaflux.tracking.runs import Dataset
from dermaflux.tracking.seed_runs import Parent

TRAINING = "training"
TESTING = "classifier"
_WITH_RATIO = (*MIXED, *REPEATING)
"""Arms whose runs have a ratio; the further images of `more_real` count as real ones."""
_AUC = ("auc", "mauc")
"""Both are logged as `AUC`: of two classes the macro one-versus-rest AUC is the AUC. With a capital
the name sorts first, so the MLflow UI takes it where it needs a metric to start with."""


def arm_parameters(
    params: Params, architecture: str, seed: int, arm: str, n_real: int | None = None
) -> dict[str, Any]:
    """What a run of an arm is filtered and compared by: few, flat, and the same in both stages.

    The UI starts its comparisons with the first names in alphabetical order that differ: what a
    grid varies comes before the settings of training.
    `n_real` is the number of real images of the arm, where that is known: `real_fraction` may
    decide it, and arms such as `more_real` have another.
    """
    fraction = params.real_fraction
    if n_real is None and not fraction:
        n_real = params.n_real
    ratio = params.ratio if arm in _WITH_RATIO else 0.0
    if params.n_synthetic is not None and arm in _WITH_RATIO:
        ratio = params.n_synthetic / n_real if n_real else float("inf")
    # A number that follows from n_real and ratio would come before ratio in the UI's comparisons.
    synthetic = {} if params.n_synthetic is None else {"n_synthetic": params.n_synthetic}
    settings, distill = params.training(architecture), params.distill
    taught = architecture in distill.students and arm != "no_teacher"
    return {
        "architecture": architecture,
        "arm": arm,
        "seed": seed,
        **({} if n_real is None else {"n_real": n_real}),
        **({} if fraction is None else {"real_fraction": fraction}),
        "ratio": ratio,
        **(synthetic if arm in MIXED else {}),
        "train.labels": settings.labels,
        **({} if settings.draw == "pooled" else {"train.draw": settings.draw}),
        "train.epochs": settings.epochs,
        "train.learning_rate": settings.models[architecture].learning_rate,
        "train.image_size": settings.image_size,
        **(distill.model_dump(include={"teacher", "alpha", "temperature"}) if taught else {}),
    }


def name(parameters: dict[str, Any], of_all_seeds: bool = False) -> str:
    """`vit mixture 1:1.75 seed 0`; without the seed for the parent."""
    words = [str(parameters["architecture"]), str(parameters["arm"]).replace("_", " ")]
    if "real_fraction" in parameters:
        words.append(f"{100 * parameters['real_fraction']:g} %")
    if parameters["arm"] in _WITH_RATIO:
        real = 0 if parameters["ratio"] == float("inf") else 1
        words.append(f"{real}:{parameters['ratio'] if real else 1:g}")
    if not of_all_seeds:
        words.append(f"seed {parameters['seed']}")
    return " ".join(words)


def parent(params: Params, parameters: dict[str, Any], stage: str) -> Parent:
    """The run of all seeds that share everything which decides the arm's figures, but the seed."""
    shared = {key: value for key, value in parameters.items() if key != "seed"}
    settings = params.training(parameters["architecture"]).model_dump(
        exclude={"architectures", "seeds", "arms", "curve", "models"}
    )
    experiment = os.environ.get("DVC_EXP_NAME")
    key = fingerprint(
        experiment=experiment,
        shared=shared,
        settings=settings,
        model=params.train.models[parameters["architecture"]].model_dump(),
        evaluate=params.evaluate.model_dump() if stage == "evaluate" else None,
    )
    tags = {"stage": stage, "mlflow.runColor": color(parameters)}
    if experiment is not None:
        tags["DVC_EXP_NAME"] = experiment
    return Parent(
        key=key,
        name=name(parameters, of_all_seeds=True),
        parameters={key: str(value) for key, value in shared.items()},
        tags=tags,
        headline="AUC" if stage == "evaluate" else "best_auc",
    )


def color(parameters: dict[str, Any]) -> str:
    """`#rrggbb`: the hue tells the arm, the lightness the architecture, whatever the ratio.

    The lightness follows from the architecture's name alone, so that another one in
    `train.architectures` changes no run.
    """
    white = 0.5 * rank("colour", parameters["architecture"])[0] / 255
    base = bytes.fromhex(arms.colour(parameters["arm"])[1:])
    return "#" + bytes(round((1 - white) * part + white * 255) for part in base).hex()


def dataset(
    name: str,
    path: Path,
    labels: Array,
    context: Literal["training", "validation", "testing"],
    classes: Sequence[str] = CLASSES,
) -> Dataset:
    """Images of a table that a run used; `labels` (N,) are class numbers."""
    images = np.bincount(np.asarray(labels, int), minlength=len(classes))
    counts = {label: int(count) for label, count in zip(classes, images, strict=True)}
    return Dataset(name, path, counts, context)


def metric_names(figures: Mapping[str, Any]) -> dict[str, float]:
    """Few metrics under short names: the AUC with its interval, the others without theirs.

    All intervals are in the run's artefact `figures.json`.
    """
    metrics: dict[str, float] = {}
    for name, value in figures.items():
        stem = name.removesuffix("_low").removesuffix("_high")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if stem in _AUC:
            metrics[name.replace(stem, "AUC", 1)] = float(value)
        elif stem == name:
            metrics[name] = float(value)
    return metrics
