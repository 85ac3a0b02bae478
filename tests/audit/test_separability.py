"""Real against synthetic: equal distributions, planted differences, and classes that transfer."""

from __future__ import annotations

import numpy as np
import pytest

from dermaflux.audit import area
from dermaflux.audit.faithfulness import mean_images
from dermaflux.audit.faithfulness.separability import Part, report, tell_apart
from dermaflux.statistics import delong


def part(points: np.ndarray, labels: np.ndarray | str = "benign") -> Part:
    names = np.full(len(points), labels) if isinstance(labels, str) else labels
    return Part(points.astype(np.float32), names, np.arange(len(points)))


def test_the_area_and_its_interval_are_those_of_delong_and_obuchowski() -> None:
    draw = np.random.default_rng(0)
    labels = np.arange(90) < 40
    scores = np.round(draw.normal(size=90) + labels, 1)  # with ties
    for groups in (np.arange(90), draw.permutation(90) // 3):
        # Groups here never hold both kinds, where Obuchowski's covariance is 0.
        groups = np.where(labels, groups, groups + 1000)
        areas, matrix = delong.covariance(labels.astype(int), scores[None], groups)
        sides = scores[labels], scores[~labels], groups[labels], groups[~labels]
        found = area.mean([area.Scored(*sides)])
        assert found.value == pytest.approx(areas[0])
        assert (found.high - found.low) / 2 == pytest.approx(1.96 * np.sqrt(matrix[0, 0]), rel=1e-3)
    perfect = area.of(np.arange(50) + 100.0, np.arange(60.0))
    assert (perfect.value, perfect.high) == (1, 1)
    assert perfect.low == pytest.approx(0.025 ** (1 / 50))


def test_equal_distributions_give_one_half_within_the_interval_in_95_of_100() -> None:
    held, values = 0, []
    for seed in range(100):
        draw = np.random.default_rng(seed)
        points = draw.normal(size=(130, 20)) @ draw.normal(size=(20, 20))
        found = tell_apart(part(points[:50]), part(points[50:])).auc
        held += found.low <= 0.5 <= found.high
        values.append(found.value)
    assert 90 <= held <= 99
    assert np.mean(values) == pytest.approx(0.5, abs=0.02)


def test_copies_of_a_photograph_are_on_one_side_of_a_fold() -> None:
    """Noise around a few photographs can be learnt by heart, and nothing else is there."""
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(40, 400))
    photographs = np.repeat(np.arange(40), 5)
    points = centres[photographs] + 0.01 * draw.normal(size=(200, 400))
    ours, theirs = photographs < 20, photographs >= 20
    split = [Part(points[s], np.full(s.sum(), "benign"), photographs[s]) for s in (ours, theirs)]
    found = tell_apart(*split).auc
    assert found.low < 0.5 < found.high
    leaking = [each._replace(photographs=np.arange(100)) for each in split]
    assert tell_apart(*leaking).auc.value > 0.95


def test_what_the_classifier_looks_at_is_the_planted_square() -> None:
    draw = np.random.default_rng(0)
    images = draw.normal(120, 10, size=(240, 8, 8, 3))
    images[:120, 2:4, 5:7, 0] += 12
    points = images.reshape(240, -1)
    told = tell_apart(part(points[:120]), part(points[120:]))
    assert told.auc.low > 0.8
    found = mean_images.pictures(images[:120], images[120:], told)
    planted = np.zeros((8, 8, 3), bool)
    planted[2:4, 5:7, 0] = True
    assert found.pattern[planted].min() > 2 * np.abs(found.pattern[~planted]).max()
    assert found.synthetic == pytest.approx(images[:120].mean(0))


def test_classes_are_compared_with_their_own_and_what_is_missing_is_said() -> None:
    """Another class balance separates nothing; a class that transfers does so both ways."""
    draw = np.random.default_rng(0)

    def images(benign: int, malignant: int, sign: float = 1.0) -> Part:
        labels = np.repeat(["benign", "malignant"], [benign, malignant])
        points = draw.normal(size=(benign + malignant, 12))
        points[:, 0] += sign * 2 * (labels == "malignant")
        return part(points, labels)

    pool, training, test = images(150, 150), images(400, 100), images(120, 120)
    measured, told = report(pool, training, test)
    assert measured["train"]["auc"]["low"] < 0.5 < measured["train"]["auc"]["high"]
    classes = measured["train"]["classes"]
    assert (classes["malignant"]["images"], classes["malignant"]["reference_images"]) == (150, 100)
    assert [*told] == ["benign", "malignant"]
    assert min(measured["transfer"][name]["low"] for name in measured["transfer"]) > 0.8
    flipped = report(images(150, 150, -1.0), training, test)[0]
    assert flipped["transfer"]["synthetic_real"]["high"] < 0.2
    assert flipped["transfer"]["real_real"]["low"] > 0.8

    few, told = report(images(150, 30), training, test)
    assert "malignant" not in told
    reason = few["train"]["classes"]["malignant"]["reason"]
    assert reason == "needs 100 images on either side, and there are 30 and 100"
    assert few["train"]["auc"]["value"] == few["train"]["classes"]["benign"]["value"]
    assert few["transfer"]["synthetic_real"]["value"] is None
    assert few["transfer"]["real_real"]["value"] is not None
    # A generator that makes one image of a class: nothing is left to learn from or to test on.
    one = images(150, 150)
    same = one._replace(photographs=np.where(one.labels == "benign", 0, one.photographs))
    collapsed = report(same, training, test)[0]
    assert collapsed["train"]["classes"]["benign"]["reason"] == (
        "needs 5 different images on either side, and there are 1 and 400"
    )
    assert collapsed["train"]["classes"]["malignant"]["value"] is not None
    assert collapsed["transfer"]["real_synthetic"]["low"] == 0
    none = report(images(0, 150), training, test.where(np.zeros(240, bool)))[0]
    assert [*none["train"]["classes"]] == ["malignant"]
    assert (
        none["test"]["auc"]["reason"] == "needs 100 images on either side, and there are 150 and 0"
    )
