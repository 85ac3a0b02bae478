"""Metrics of several diagnoses against scikit-learn; weights against repeated rows."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as reference
from sklearn.dummy import DummyClassifier

from dermaflux.metrics import calibration, multiclass

REAL = Path(__file__).parents[3] / "shared/real/metadata/ISIC2018_Task3_Test_GroundTruth.csv"


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
        "weighted_f1": reference.f1_score(labels, predicted, average="weighted", labels=present),
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


ISIC2018_TEST = {"nv": 909, "bkl": 217, "mel": 171, "bcc": 93, "df": 44, "akiec": 43, "vasc": 35}
MALIGNANT = ("mel", "bcc", "akiec")


def test_the_majority_accuracy_of_isic_2018s_test_part() -> None:
    codes = [code for code, count in ISIC2018_TEST.items() for _ in range(count)]
    if REAL.is_file():
        with REAL.open(newline="") as file:
            codes = [row["dx"] for row in csv.DictReader(file)]
        assert Counter(codes) == ISIC2018_TEST
    labels = np.array([[*ISIC2018_TEST].index(code) for code in codes])
    malignant = np.array([code in MALIGNANT for code in codes]).astype(int)
    for classes, expected in ((labels, 909 / 1512), (malignant, 1205 / 1512)):
        majority = multiclass.majority_accuracy(classes)
        dummy = DummyClassifier(strategy="most_frequent").fit(classes[:, None], classes)
        assert majority == dummy.score(classes[:, None], classes) == expected
    assert [round(n / 1512, 3) for n in (909, 1205)] == [0.601, 0.797]


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
