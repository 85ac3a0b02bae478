"""Arms on one test set: paired differences, intervals, what the temperature does."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dermaflux.metrics import calibration
from dermaflux.params import Evaluate
from dermaflux.statistics import comparison, delong
from dermaflux.statistics.comparison import Scored

SETTINGS = Evaluate(bootstrap_samples=500)


def sample(shift: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = (np.arange(200) < 80).astype(int)
    return labels, 1 / (1 + np.exp(-generator.normal(shift * labels, 1)))


def test_difference_is_paired() -> None:
    labels, good = sample(1.5, 0)
    nearly = good + 1e-3 * np.random.default_rng(1).random(len(good))
    arms = {"real": Scored(good), "mixture": Scored(nearly), "repeated": Scored(good)}
    found = comparison.compare(labels, np.arange(200), arms, SETTINGS)
    width = found["real"]["auc_high"] - found["real"]["auc_low"]
    mixture = found["differences"]["mixture"]
    assert mixture["auc_high"] - mixture["auc_low"] < 0.05 * width
    assert mixture["auc"] == pytest.approx(found["mixture"]["auc"] - found["real"]["auc"])
    assert mixture["auc_p"] == delong.compare(labels, nearly, good).p
    assert found["differences"]["repeated"]["auc_p"] == 1
    assert found["differences"].keys() == {"mixture", "repeated"}


def test_interval_holds_the_figure_and_json_is_plain_numbers() -> None:
    labels, scores = sample(1.0, 2)
    found = comparison.compare(labels, np.arange(200), {"mixture": Scored(scores)}, SETTINGS)
    assert found["differences"] == {}  # nothing to hold it against
    arm = found["mixture"]
    names = ("auc", "accuracy", "f1", "brier", "sensitivity_at_95", "specificity_at_90", "log_loss")
    for name in (*names, "calibration_error"):
        assert arm[f"{name}_low"] <= arm[name] <= arm[f"{name}_high"], name
    assert json.loads(json.dumps(found)) == found
    assert sum(arm["confusion"].values()) == 200


def test_the_temperature_changes_calibration_and_nothing_else() -> None:
    labels, scores = sample(1.0, 3)
    raw = comparison.compare(labels, np.arange(200), {"real": Scored(scores)}, SETTINGS)["real"]
    value = calibration.temperature(labels, scores)
    arm = Scored(scores, value)
    warm = comparison.compare(labels, np.arange(200), {"real": arm}, SETTINGS)["real"]
    assert warm["calibrated_log_loss"] < warm["log_loss"] - 1e-3
    assert raw["calibrated_log_loss"] == pytest.approx(raw["log_loss"])
    fixed = [name for name in raw if "calibrated" not in name and name != "temperature"]
    assert [warm[name] for name in fixed] == [raw[name] for name in fixed]


def test_diagnoses() -> None:
    generator = np.random.default_rng(5)
    labels = generator.integers(0, 3, 120)
    worse, better = (generator.dirichlet(np.ones(3), 120) + k * np.eye(3)[labels] for k in (0.2, 2))
    arms = {"real": Scored(worse / 1.2, 1.5), "mixture": Scored(better / 3, 0.5)}
    found = comparison.compare(labels, np.arange(120), arms, SETTINGS)
    assert found["mixture"]["mauc"] == pytest.approx(1)
    difference = found["differences"]["mixture"]
    assert difference["macro_f1"] > 0
    assert difference["mauc_p"] < 0.001
    assert "auc_p" not in difference
