"""Arms as lists of indices: how often each image is shown, and in which order."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch

from dermaflux.classifiers.data import arm_plan, diagnoses, subset
from dermaflux.errors import InputError

LABELS = np.array([0] * 5 + [1] * 3)


def test_repeated_images_replace_the_synthetic_ones_class_by_class() -> None:
    added = {0: 7, 1: 7}
    shown = arm_plan.plan("repeated", LABELS, added, "flips").shown
    times = Counter(shown.tolist())
    assert [times[index] for index in range(8)] == [3, 3, 2, 2, 2, 4, 3, 3]
    assert np.bincount(LABELS[shown]).tolist() == [5 + 7, 3 + 7]
    augmented = arm_plan.plan("augmented", LABELS, added, "flips")
    assert augmented.shown.tolist() == shown.tolist()
    assert augmented.augmentation == "strong"


@pytest.mark.parametrize("arm", ["real", "mixture", "random_features"])
def test_other_arms_show_each_image_once(arm) -> None:
    plan = arm_plan.plan(arm, LABELS, {0: 7, 1: 7}, "flips")
    assert plan.shown.tolist() == list(range(8))
    assert plan.augmentation == "flips"
    assert plan.last_layer_only == (arm == "random_features")


def test_nothing_added_leaves_the_repeated_arm_the_real_one() -> None:
    none = arm_plan.plan("repeated", LABELS, {0: 0, 1: 0}, "flips")
    real = arm_plan.plan("real", LABELS, {0: 0, 1: 0}, "flips")
    assert (none.shown == real.shown).all()
    assert none.augmentation == real.augmentation


def test_shuffled_shows_each_image_once() -> None:
    order = arm_plan.order(LABELS, "shuffled", torch.Generator().manual_seed(0))
    assert sorted(order.tolist()) == list(range(8))


def test_balanced_shows_classes_equally_and_images_of_a_class_alike() -> None:
    labels = np.array([0] * 90 + [2] * 10 + [5] * 3)  # 103 over three classes
    for seed in range(20):
        order = arm_plan.order(labels, "balanced", torch.Generator().manual_seed(seed)).numpy()
        per_class = np.bincount(labels[order], minlength=6)
        assert per_class.sum() == 103
        assert sorted(per_class[[0, 2, 5]]) == [34, 34, 35]
        times = np.bincount(order, minlength=103)
        for name, count in ((0, 90), (2, 10), (5, 3)):
            members = times[labels == name]
            assert members.max() - members.min() <= 1, (name, count)


def test_shares_of_a_split_are_nested_and_keep_every_class() -> None:
    rows = pd.DataFrame(
        {
            "image_id": [f"x/{number:04d}" for number in range(1030)],
            "diagnosis": ["nevus"] * 800 + ["melanoma"] * 200 + ["angioma"] * 30,
        }
    )
    counts = subset.counts(rows, ("angioma", "melanoma", "nevus"))
    draws = []
    for share in (0.01, 0.1, 1.0):
        wanted = subset.fraction(counts, share)
        assert list(wanted.values()) == [max(1, int(share * n + 0.5)) for n in (30, 200, 800)]
        draws.append(set(subset.draw(rows, wanted, seed=3)))
    assert draws[0] < draws[1] < draws[2] == set(rows["image_id"])


def test_synthetic_images_keep_the_proportions_of_the_real_ones() -> None:
    assert subset.proportional(4375, {"benign": 1250, "malignant": 1250}) == {
        "benign": 2187,
        "malignant": 2187,
    }
    assert subset.proportional(50, {"a": 90, "b": 9, "c": 1}) == {"a": 45, "b": 4, "c": 0}
    assert subset.proportional(5000, {"benign": 0, "malignant": 0})["malignant"] == 2500


def split(**counts: int) -> pd.DataFrame:
    names = [name for name, count in counts.items() for _ in range(count)]
    return pd.DataFrame({"diagnosis": [None if name == "none" else name for name in names]})


def test_diagnoses_need_training_images_and_one_of_validation() -> None:
    training = split(nevus=50, melanoma=12, angioma=9, lentigo=30, none=4)
    chosen = diagnoses.choose(training, split(nevus=9, melanoma=1, angioma=3), minimum=10)
    assert chosen.classes == ("melanoma", "nevus")
    assert str(chosen) == (
        "2 diagnoses: melanoma, nevus; left out, training images: "
        "angioma (9), lentigo (30), none given (4)"
    )
    with pytest.raises(InputError, match=r"1 of 4 diagnoses .* 13 .* needs 2; lower"):
        diagnoses.choose(training, split(nevus=9, melanoma=1), minimum=13)
    with pytest.raises(InputError, match="set train.labels to malignancy"):
        diagnoses.choose(split(benign=20, malignant=20), split(benign=1, malignant=1), 10)
