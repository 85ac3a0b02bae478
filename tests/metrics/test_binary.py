"""Metrics against scikit-learn and closed forms; weights against repeated rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from dermaflux.metrics import binary, calibration


@pytest.fixture(params=["continuous", "tied"])
def sample(request):
    generator = np.random.default_rng(5)
    labels = (generator.random(301) < 0.3).astype(int)
    scores = 1 / (1 + np.exp(-generator.normal(labels * 1.2 - 0.4, 1)))
    return labels, scores if request.param == "continuous" else np.round(scores, 1)


def test_figures_agree_with_scikit_learn(sample) -> None:
    labels, scores = sample
    predicted = scores >= 0.5
    once = np.ones((1, len(labels)), int)
    values = binary.figures(labels, scores, 0.5, [0.9, 0.95], once, [0.9, 0.95])
    false, true, _ = reference.roc_curve(labels, scores, drop_intermediate=False)
    expected = {
        "auc": reference.roc_auc_score(labels, scores),
        "accuracy": reference.accuracy_score(labels, predicted),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, predicted),
        "f1": reference.f1_score(labels, predicted),
        "macro_f1": reference.f1_score(labels, predicted, average="macro"),
        "weighted_f1": reference.f1_score(labels, predicted, average="weighted"),
        "sensitivity": reference.recall_score(labels, predicted),
        "specificity": reference.recall_score(labels, predicted, pos_label=0),
        "brier": reference.brier_score_loss(labels, scores),
        "log_loss": reference.log_loss(labels, scores),
        "calibration_error": calibration.expected_calibration_error(labels, scores),
        "sensitivity_at_90": true[false <= 0.1].max(),
        "sensitivity_at_95": true[false <= 0.05].max(),
        "specificity_at_90": 1 - false[true >= 0.9].min(),
        "specificity_at_95": 1 - false[true >= 0.95].min(),
    }
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        assert values[name][0] == pytest.approx(value, abs=1e-12), name
    assert binary.auc(labels, scores) == pytest.approx(expected["auc"], abs=1e-12)
    alone = binary.threshold_figures(labels, scores, 0.5, once)
    assert all(alone[name][0] == values[name][0] for name in alone)
    assert binary.confusion(labels, scores, 0.5) == {
        "true_positives": ((labels == 1) & (scores >= 0.5)).sum(),
        "false_positives": ((labels == 0) & (scores >= 0.5)).sum(),
        "true_negatives": ((labels == 0) & (scores < 0.5)).sum(),
        "false_negatives": ((labels == 1) & (scores < 0.5)).sum(),
    }


def test_a_weight_is_a_repeated_image(sample) -> None:
    labels, scores = sample
    weights = np.random.default_rng(0).integers(0, 4, (7, len(labels)))
    values = binary.figures(labels, scores, 0.5, [0.8], weights, [0.7, 0.95])
    for index, row in enumerate(weights):
        repeated = np.repeat(labels, row), np.repeat(scores, row)
        once = np.ones((1, row.sum()), int)
        expected = binary.figures(*repeated, 0.5, [0.8], once, [0.7, 0.95])
        for name in values:
            assert values[name][index] == pytest.approx(expected[name][0], abs=1e-12), name
    assert binary.bootstrap_auc(labels, scores, weights) == pytest.approx(values["auc"])


def test_chunks_do_not_change_a_figure(sample, monkeypatch) -> None:
    labels, scores = sample
    weights = np.random.default_rng(0).integers(0, 3, (50, len(labels)))
    whole = binary.figures(labels, scores, 0.5, [0.9], weights)
    monkeypatch.setattr(binary, "_ELEMENTS", 3 * len(labels))
    parts = binary.figures(labels, scores, 0.5, [0.9], weights)
    assert all(parts[name] == pytest.approx(whole[name], abs=1e-14) for name in whole)


def test_a_classifier_that_predicts_nothing_malignant() -> None:
    labels, scores = np.array([0, 0, 1, 1]), np.full(4, 0.2)
    once = np.ones((1, 4), int)
    arrays = binary.figures(labels, scores, 0.5, [0.9], once, [0.9])
    names = ("auc", "f1", "sensitivity_at_90", "specificity_at_90", "specificity")
    values = {name: arrays[name][0] for name in names}
    assert values == {
        "auc": 0.5,
        "f1": 0.0,
        "sensitivity_at_90": 0.0,
        "specificity_at_90": 0.0,
        "specificity": 1.0,
    }


def test_one_class_has_the_metrics_that_are_defined() -> None:
    labels, scores = np.ones(4, int), np.array([0.2, 0.6, 0.7, 0.9])
    values = binary.threshold_figures(labels, scores, 0.5, np.ones((1, 4), int))
    assert values["sensitivity"][0] == values["accuracy"][0] == 0.75
    assert np.isnan(values["specificity"][0])
    # The confusion matrix stays 2 x 2 where every image is of one class and predicted as it.
    assert list(binary.confusion(labels, scores, 0.1).values()) == [4, 0, 0, 0]


def test_roc_points_are_the_corners_of_the_curve_until_thinned(sample) -> None:
    labels, scores = sample
    points = binary.roc_points(labels, scores, at_most=10_000)
    assert points[0].tolist() == [0, 0]
    assert points[-1].tolist() == [1, 1]
    area = np.trapezoid(points[:, 1], points[:, 0])
    assert area == pytest.approx(binary.auc(labels, scores))
    # Rates by counting at every threshold: each point is one of them, and no other is a corner.
    counted = {
        tuple(np.mean(scores[labels == label] >= threshold) for label in (0, 1))
        for threshold in scores
    }
    assert {tuple(point) for point in points[1:]} <= counted
    for false_positive_rate, true_positive_rate in counted:
        curve = np.interp(false_positive_rate, points[:, 0], points[:, 1])
        vertical = points[points[:, 0] == false_positive_rate, 1]
        assert true_positive_rate == pytest.approx(curve) or (
            vertical.min() <= true_positive_rate <= vertical.max()
        )
    slopes = np.arctan2(*np.diff(points, axis=0).T)
    assert (np.abs(np.diff(slopes)) > 1e-9).all()  # no point on a straight segment
    assert len(binary.roc_points(labels, scores, at_most=12)) <= 12
