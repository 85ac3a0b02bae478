"""Metrics of several diagnoses against scikit-learn; weights against repeated rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from dermaflux.metrics import calibration, multiclass


@pytest.fixture
def sample():
    """300 images of classes 0, 1 and 3; class 2 does not occur but is predicted."""
    generator = np.random.default_rng(3)
    labels = generator.choice([0, 1, 3], 300, p=[0.6, 0.3, 0.1])
    logits = generator.normal(0, 1, (300, 4)) + np.eye(4)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_figures_agree_with_scikit_learn(sample) -> None:
    labels, probability = sample
    predicted, present = probability.argmax(axis=1), [0, 1, 3]
    values = multiclass.figures(labels, probability, np.ones((1, 300), int))
    aucs = [reference.roc_auc_score(labels == k, probability[:, k]) for k in present]
    expected = {
        "mauc": np.mean(aucs),
        "macro_f1": reference.f1_score(labels, predicted, average="macro", labels=present),
        "accuracy": reference.accuracy_score(labels, predicted),
        "balanced_accuracy": reference.recall_score(
            labels, predicted, average="macro", labels=present
        ),
        "log_loss": -np.log(probability[np.arange(300), labels]).mean(),
        "calibration_error": calibration.expected_calibration_error(labels, probability),
    }
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        assert values[name][0] == pytest.approx(value), name
    assert multiclass.mauc(labels, probability) == pytest.approx(expected["mauc"])
    assert np.isnan(multiclass.mauc(np.zeros(5, int), probability[:5]))
    binary = multiclass.class_figures(labels, probability, 1, np.ones((1, 300), int))
    scores = reference.precision_recall_fscore_support(
        labels == 1, predicted == 1, average="binary"
    )
    assert [binary["sensitivity"][0], binary["f1"][0]] == pytest.approx(scores[1:3])
    rejected = reference.recall_score(labels == 1, predicted == 1, pos_label=False)
    assert binary["specificity"][0] == pytest.approx(rejected)


def test_with_every_class_present_it_is_scikit_learns_macro_auc() -> None:
    generator = np.random.default_rng(4)
    labels = generator.integers(0, 3, 200)
    probability = generator.dirichlet(np.ones(3), 200)
    expected = reference.roc_auc_score(labels, probability, multi_class="ovr", average="macro")
    assert multiclass.mauc(labels, probability) == pytest.approx(expected)


def test_a_weight_is_a_repeated_image(sample) -> None:
    labels, probability = sample
    weights = np.random.default_rng(0).integers(0, 4, (4, 300))
    values = multiclass.figures(labels, probability, weights)
    for index, row in enumerate(weights):
        repeated = np.repeat(labels, row), np.repeat(probability, row, axis=0)
        expected = multiclass.figures(*repeated, np.ones((1, row.sum()), int))
        for name in values:
            assert values[name][index] == pytest.approx(expected[name][0]), name
