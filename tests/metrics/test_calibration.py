"""Temperature and reliability against scikit-learn, a grid search and a known distortion."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from dermaflux.metrics import calibration


def test_a_known_distortion_is_estimated_and_corrected() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, 200_000)
    labels = (generator.random(len(logits)) < expit(logits)).astype(int)
    overconfident = expit(2.5 * logits)
    temperature = calibration.fit_temperature(labels, overconfident)
    assert temperature == pytest.approx(2.5, rel=0.02)
    calibrated = calibration.apply_temperature(overconfident, temperature)
    assert calibrated == pytest.approx(expit(logits), abs=0.01)
    assert calibration.expected_calibration_error(labels, overconfident) > 0.05
    assert calibration.expected_calibration_error(labels, calibrated) < 0.005


def test_balanced_weights_do_not_take_a_rare_class_for_overconfidence() -> None:
    generator = np.random.default_rng(5)
    labels = np.repeat([0, 1], [90_000, 10_000])
    shifted = expit(1.5 * generator.normal(labels - 0.5, 1) + 0.7)
    temperature = calibration.fit_temperature(labels, shifted, balanced=True)
    subset = np.r_[0:10_000, 90_000:100_000]
    of_subset = calibration.fit_temperature(labels[subset], shifted[subset])
    assert temperature == pytest.approx(of_subset, 0.05)
    assert calibration.fit_temperature(labels, shifted) > 1.5 * temperature


@pytest.mark.parametrize("classes", [2, 5])
def test_no_temperature_has_a_lower_loss(classes: int) -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, classes, 400)
    logits = generator.normal(0, 2, (400, classes)) + 2 * np.eye(classes)[labels]
    both = softmax(3 * logits, axis=1)
    probability = both[:, 1] if classes == 2 else both
    temperature = calibration.fit_temperature(labels, probability)
    grid = np.geomspace(*calibration.LIMITS, 801)
    losses = [log_loss(labels, softmax(3 * logits / value, axis=1)) for value in grid]
    assert temperature == pytest.approx(grid[np.argmin(losses)], rel=5e-3)
    calibrated = calibration.apply_temperature(probability, temperature)
    assert calibrated.shape == probability.shape
    # Probabilities near 1 have few digits.
    assert calibration.log_loss(labels, calibrated) <= min(losses) + 1e-5
    assert calibration.log_loss(labels, probability) == pytest.approx(log_loss(labels, both))
    if classes == 2:
        assert (calibrated.argsort() == probability.argsort()).all()
    else:
        assert (calibrated.argmax(axis=1) == probability.argmax(axis=1)).all()


def test_extremes_stay_inside_the_limits() -> None:
    labels = np.array([0, 0, 1, 1])
    separated, reversed_ = np.array([0.0, 0.2, 0.9, 1.0]), np.array([0.9, 0.8, 0.2, 0.1])
    assert calibration.fit_temperature(labels, separated) == calibration.LIMITS[0]
    assert calibration.fit_temperature(labels, reversed_) == calibration.LIMITS[1]
    assert calibration.fit_temperature(np.empty(0, int), np.empty(0)) == 1
    assert np.isfinite(calibration.log_loss(1 - labels, separated))


def test_reliability_agrees_with_scikit_learn_and_the_closed_form() -> None:
    generator = np.random.default_rng(2)
    probability = generator.random(3000) ** 2
    labels = (generator.random(3000) < probability**1.3).astype(int)
    curve = calibration.reliability(labels, probability, bins=10)
    observed, mean = calibration_curve(labels, probability, n_bins=10)
    assert curve["observed"] == pytest.approx(observed)
    assert curve["probability"] == pytest.approx(mean)
    counts, edges = np.histogram(probability, bins=10, range=(0, 1))
    assert curve["images"].tolist() == counts.tolist()
    assert curve["low"] == pytest.approx(edges[:-1])
    assert curve["high"] == pytest.approx(edges[1:])
    # 40 images at 0.3 of which a quarter are malignant, 60 at 0.9 of which two thirds are.
    probability = np.repeat([0.3, 0.9], [40, 60])
    labels = np.concatenate([np.arange(40) < 10, np.arange(60) < 40]).astype(int)
    expected = 0.4 * abs(0.3 - 0.25) + 0.6 * abs(0.9 - 2 / 3)
    error = calibration.expected_calibration_error
    assert error(labels, probability) == pytest.approx(expected)
    assert error(np.array([0, 1]), np.array([0.0, 1.0])) == 0


def test_with_many_classes_calibration_is_that_of_the_most_probable_one() -> None:
    probability = np.array([[0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [0.2, 0.6, 0.2], [0.6, 0.2, 0.2]])
    labels = np.array([0, 2, 0, 0])
    curve = calibration.reliability(labels, probability, bins=5)
    assert curve["images"].tolist() == [3, 1]
    assert curve["observed"] == pytest.approx([2 / 3, 1])
    expected = 0.75 * abs(2 / 3 - 0.6) + 0.25 * 0.2
    error = calibration.expected_calibration_error(labels, probability, bins=5)
    assert error == pytest.approx(expected)
