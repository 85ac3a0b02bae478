"""Temperature and reliability against scikit-learn, a grid search and a known distortion."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from dermaflux.metrics import calibration


def test_a_known_distortion_is_found_and_undone() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, 200_000)
    labels = (generator.random(len(logits)) < expit(logits)).astype(int)
    overconfident = expit(2.5 * logits)
    found = calibration.temperature(labels, overconfident)
    assert found == pytest.approx(2.5, rel=0.02)
    assert calibration.tempered(overconfident, found) == pytest.approx(expit(logits), abs=0.01)
    assert calibration.error(labels, overconfident) > 0.05
    assert calibration.error(labels, calibration.tempered(overconfident, found)) < 0.005


def test_a_rarer_class_is_no_lack_of_confidence() -> None:
    generator = np.random.default_rng(5)
    labels = np.repeat([0, 1], [90_000, 10_000])
    leaning = expit(1.5 * generator.normal(labels - 0.5, 1) + 0.7)
    found = calibration.temperature(labels, leaning, balanced=True)
    as_many = np.r_[0:10_000, 90_000:100_000]
    assert found == pytest.approx(calibration.temperature(labels[as_many], leaning[as_many]), 0.05)
    assert calibration.temperature(labels, leaning) > 1.5 * found


@pytest.mark.parametrize("classes", [2, 5])
def test_no_temperature_has_a_lower_loss(classes: int) -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, classes, 400)
    logits = generator.normal(0, 2, (400, classes)) + 2 * np.eye(classes)[labels]
    probability = softmax(3 * logits, axis=1)
    given = probability[:, 1] if classes == 2 else probability
    found = calibration.temperature(labels, given)
    grid = np.geomspace(*calibration.LIMITS, 801)
    losses = [log_loss(labels, softmax(3 * logits / value, axis=1)) for value in grid]
    assert found == pytest.approx(grid[np.argmin(losses)], rel=5e-3)
    tempered = calibration.tempered(given, found)
    assert tempered.shape == given.shape
    assert calibration.log_loss(labels, tempered) <= min(losses) + 1e-5  # p near 1 has few digits
    assert calibration.log_loss(labels, given) == pytest.approx(log_loss(labels, probability))
    order = tempered.argsort(axis=0) if classes == 2 else tempered.argmax(axis=1)
    assert (order == (given.argsort(axis=0) if classes == 2 else given.argmax(axis=1))).all()


def test_extremes_stay_inside_the_limits() -> None:
    labels = np.array([0, 0, 1, 1])
    apart, reversed_ = np.array([0.0, 0.2, 0.9, 1.0]), np.array([0.9, 0.8, 0.2, 0.1])
    assert calibration.temperature(labels, apart) == calibration.LIMITS[0]
    assert calibration.temperature(labels, reversed_) == calibration.LIMITS[1]
    assert calibration.temperature(np.empty(0, int), np.empty(0)) == 1
    assert np.isfinite(calibration.log_loss(1 - labels, apart))


def test_reliability_agrees_with_scikit_learn_and_the_closed_form() -> None:
    generator = np.random.default_rng(2)
    said = generator.random(3000) ** 2
    labels = (generator.random(3000) < said**1.3).astype(int)
    curve = calibration.reliability(labels, said, bins=10)
    observed, mean = calibration_curve(labels, said, n_bins=10)
    assert curve["observed"] == pytest.approx(observed)
    assert curve["probability"] == pytest.approx(mean)
    assert curve["images"].sum() == 3000
    # 40 images at 0.3 of which a quarter are malignant, 60 at 0.9 of which two thirds are.
    said = np.repeat([0.3, 0.9], [40, 60])
    labels = np.concatenate([np.arange(40) < 10, np.arange(60) < 40]).astype(int)
    expected = 0.4 * abs(0.3 - 0.25) + 0.6 * abs(0.9 - 2 / 3)
    assert calibration.error(labels, said) == pytest.approx(expected)
    assert calibration.error(np.array([0, 1]), np.array([0.0, 1.0])) == 0


def test_of_many_classes_the_likeliest_is_judged() -> None:
    probability = np.array([[0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [0.2, 0.6, 0.2], [0.6, 0.2, 0.2]])
    curve = calibration.reliability(np.array([0, 2, 0, 0]), probability, bins=5)
    assert curve["images"].tolist() == [3, 1]
    assert curve["observed"] == pytest.approx([2 / 3, 1])
    assert calibration.error(np.array([0, 2, 0, 0]), probability, bins=5) == pytest.approx(
        0.75 * abs(2 / 3 - 0.6) + 0.25 * 0.2
    )
