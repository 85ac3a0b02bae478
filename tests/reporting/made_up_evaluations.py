"""What `evaluate` writes of made-up classifiers on the test images of the workspace."""

from __future__ import annotations

import numpy as np

from dermaflux import paths, table
from dermaflux.classifiers import bootstrap, comparison, evaluate, subgroups
from dermaflux.classifiers.comparison import Scored
from dermaflux.classifiers.mixture import CLASSES
from dermaflux.params import Params

# How far apart each arm puts the logits of benign and malignant test images.
SEPARATION = {
    "real": -0.8,
    "mixture": 6.0,
    "repeated": -0.7,
    "augmented": -0.6,
    "random_features": 0.3,
}


def malignancy(params: Params, separation: dict[str, float] = SEPARATION) -> None:
    """Cells of every architecture and seed that tell benign from malignant."""
    columns = [*subgroups.GROUPINGS, "image_id", "label", "lesion_id", "duplicate_group"]
    rows = table.metadata(paths.CORPUS, columns, "test").sort_values("image_id")
    labels = (rows["label"] == "malignant").to_numpy().astype(int)
    members = bootstrap.groups(rows)
    for architecture in params.train.architectures:
        for seed in params.train.seeds:
            rng = np.random.default_rng(100 * len(architecture) + seed)
            shared, arms = rng.normal(size=len(labels)), {}
            for arm in params.train.arms:
                noise = 0.8 * shared + 0.6 * rng.normal(size=len(labels))
                logits = separation[arm] * (labels - 0.5) + noise
                arms[arm] = Scored(1 / (1 + np.exp(-2 * logits)), temperature=2.0)
            tested = evaluate.Tested(rows, labels, CLASSES, arms)
            result = comparison.compare(labels, members, arms, params.evaluate)
            result["test"] = {"images": len(rows), "malignant": int(labels.sum())}
            groups = subgroups.table(rows, labels, members, arms, CLASSES, params.evaluate)
            evaluate.write(paths.cell(architecture, seed), tested, groups, result)


def diagnoses(params: Params) -> None:
    """One cell of every architecture of three diagnoses, of which one has no test image."""
    columns = [*subgroups.GROUPINGS, "image_id", "label", "lesion_id", "duplicate_group"]
    rows = table.metadata(paths.CORPUS, columns, "test").sort_values("image_id")
    classes = ("dermatofibroma", "nevus", "tinea")
    labels = 1 + (rows["label"] == "malignant").to_numpy().astype(int)
    members = bootstrap.groups(rows)
    for architecture in params.train.architectures:
        rng = np.random.default_rng(len(architecture))
        arms = {}
        for arm in params.train.arms:
            logits = SEPARATION[arm] * np.eye(3)[labels] + rng.normal(size=(len(labels), 3))
            shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            arms[arm] = Scored(shares, temperature=1.5)
        tested = evaluate.Tested(rows, labels, classes, arms)
        result = comparison.compare(labels, members, arms, params.evaluate)
        result["test"] = {
            "images": len(rows),
            "per_class": {"dermatofibroma": 0, "nevus": 6, "tinea": 6},
            "absent": ["dermatofibroma"],
            "left_out": {"melanoma": 4},
        }
        groups = subgroups.table(rows, labels, members, arms, classes, params.evaluate)
        evaluate.write(paths.cell(architecture, 0), tested, groups, result)
