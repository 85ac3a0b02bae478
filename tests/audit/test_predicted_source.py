"""The audit says whether synthetic images of a class look like the sources that held it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from dermaflux.audit import predicted_source
from dermaflux.core.vocabulary import CLASSES

TRAINING = pd.DataFrame(
    [("tiles", 128, "benign")] * 60 + [("tiles", 128, "malignant")] * 2
    + [("clinic", 512, "benign")] * 20 + [("clinic", 512, "malignant")] * 40
    + [("clinic", None, "malignant")] * 6,
    columns=["source", "scale", "label"],
)  # fmt: skip


def looked(nearest: list[int], labels: list[str], held_out: pd.DataFrame) -> dict:
    return predicted_source.report(TRAINING, np.array(nearest), pd.Series(labels), held_out)


def test_the_auc_is_scikit_learns_of_the_sources_malignant_share() -> None:
    draws = np.random.default_rng(1)
    nearest, labels = draws.integers(0, len(TRAINING), 90), np.array(CLASSES)[np.arange(90) % 2]
    held = TRAINING.iloc[draws.integers(0, len(TRAINING), 30)].reset_index(drop=True)
    of_held = draws.integers(0, len(TRAINING), 30)
    report = looked([*nearest, *of_held], list(labels), held)
    shares = {("tiles", 128.0): 2 / 62, ("clinic", 512.0): 40 / 60}

    def score(rows: pd.DataFrame) -> list[float]:
        return [shares.get(key, 1.0) for key in zip(rows["source"], rows["scale"], strict=True)]

    auc = roc_auc_score(labels == "malignant", score(TRAINING.iloc[nearest]))
    assert report["auc"]["value"] == pytest.approx(auc)
    assert report["auc"]["low"] < auc < report["auc"]["high"]
    known = roc_auc_score(TRAINING["label"] == "malignant", score(TRAINING))
    assert report["training_auc"] == pytest.approx(known)
    right = np.mean(TRAINING["source"].to_numpy()[of_held] == held["source"].to_numpy())
    assert report["accuracy"]["value"] == pytest.approx(right)
    assert report["majority_accuracy"] == held["source"].value_counts(normalize=True).iloc[0]


def test_a_generator_that_paints_benign_as_tiles_is_told_from_one_that_does_not() -> None:
    tiles, clinic = 0, 70
    labels, none = ["benign", "malignant"] * 20, TRAINING[:0]
    shortcut = looked([tiles, clinic] * 20, labels, none)
    assert shortcut["auc"]["value"] == shortcut["auc"]["low"] == 1.0
    assert shortcut["accuracy"] is None
    assert shortcut["held_out_auc"] is None
    alike = looked([tiles, tiles, clinic, clinic] * 10, labels, none)
    assert alike["auc"]["value"] == 0.5
    assert alike["auc"]["low"] < 0.5 < alike["auc"]["high"]
    assert looked([tiles] * 4, ["indeterminate"] * 4, none)["auc"] is None


def test_every_image_is_counted_at_the_source_of_its_nearest_one_by_class() -> None:
    labels = pd.Series(["benign", "malignant", "malignant", "benign"])
    rows = predicted_source.nearest_sources(TRAINING, np.array([0, 61, 127, 80]), labels)
    found = {(row["source"], row["scale"]): row for row in rows}
    assert sum(row["training"] for row in rows) == len(TRAINING)
    assert found["tiles", 128]["per_class"] == {"benign": 1, "malignant": 1}
    assert found["clinic", 512]["per_class"] == {"benign": 1, "malignant": 0}
    assert found["clinic", None]["per_class"] == {"benign": 0, "malignant": 1}
    assert [row["nearest"] for row in rows] == [sum(row["per_class"].values()) for row in rows]
