"""Arms on one test set: paired differences, intervals, what the temperature does."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dermaflux.metrics import calibration
from dermaflux.params import Evaluate
from dermaflux.statistics import comparison, delong
from dermaflux.statistics.comparison import Predictions

SETTINGS = Evaluate(bootstrap_samples=500)


def sample(shift: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = (np.arange(200) < 80).astype(int)
    return labels, 1 / (1 + np.exp(-generator.normal(shift * labels, 1)))


def test_difference_is_paired() -> None:
    labels, good = sample(1.5, 0)
    nearly = good + 1e-3 * np.random.default_rng(1).random(len(good))
    real = Predictions(good)
    arms = {"real": real, "mixture": Predictions(nearly), "repeated": real}
    result = comparison.compare(labels, np.arange(200), arms, SETTINGS)
    width = result["real"]["auc_high"] - result["real"]["auc_low"]
    mixture = result["differences"]["mixture"]
    assert mixture["auc_high"] - mixture["auc_low"] < 0.05 * width
    assert mixture["auc"] == pytest.approx(result["mixture"]["auc"] - result["real"]["auc"])
    assert mixture["auc_p"] == delong.compare(labels, nearly, good).p
    assert result["differences"]["repeated"]["auc_p"] == 1
    assert result["differences"].keys() == {"mixture", "repeated"}


def test_interval_contains_the_estimate_and_json_is_plain_numbers() -> None:
    labels, scores = sample(1.0, 2)
    result = comparison.compare(labels, np.arange(200), {"mixture": Predictions(scores)}, SETTINGS)
    assert result["differences"] == {}  # no real arm to compare with
    arm = result["mixture"]
    names = ("auc", "accuracy", "f1", "brier", "sensitivity_at_95", "specificity_at_90", "log_loss")
    for name in (*names, "calibration_error"):
        assert arm[f"{name}_low"] <= arm[name] <= arm[f"{name}_high"], name
    assert json.loads(json.dumps(result)) == result
    assert sum(arm["confusion"].values()) == 200


def test_the_temperature_changes_calibration_and_nothing_else() -> None:
    labels, scores = sample(1.0, 3)
    groups, plain = np.arange(200), Predictions(scores)
    raw = comparison.compare(labels, groups, {"real": plain}, SETTINGS)["real"]
    value = calibration.fit_temperature(labels, scores)
    scaled = Predictions(scores, value)
    calibrated = comparison.compare(labels, groups, {"real": scaled}, SETTINGS)["real"]
    assert calibrated["calibrated_log_loss"] < calibrated["log_loss"] - 1e-3
    assert raw["calibrated_log_loss"] == pytest.approx(raw["log_loss"])
    fixed = [name for name in raw if "calibrated" not in name and name != "temperature"]
    assert [calibrated[name] for name in fixed] == [raw[name] for name in fixed]


def test_diagnoses() -> None:
    generator = np.random.default_rng(5)
    labels = generator.integers(0, 3, 120)
    worse, better = (generator.dirichlet(np.ones(3), 120) + k * np.eye(3)[labels] for k in (0.2, 2))
    arms = {"real": Predictions(worse / 1.2, 1.5), "mixture": Predictions(better / 3, 0.5)}
    result = comparison.compare(labels, np.arange(120), arms, SETTINGS)
    assert result["mixture"]["mauc"] == pytest.approx(1)
    difference = result["differences"]["mixture"]
    assert difference["macro_f1"] > 0
    assert difference["mauc_p"] < 0.001
    assert "auc_p" not in difference
