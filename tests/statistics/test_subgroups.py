"""Metrics per group: counts add up, few lesions get a note, values are those of the rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from dermaflux.params import Evaluate
from dermaflux.statistics import bootstrap, subgroups
from dermaflux.statistics.comparison import Predictions

SETTINGS = Evaluate(bootstrap_samples=300, minimum_group=10)


def sample() -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """120 images: source a has 60 benign and 40 malignant, b 20 malignant images of 5 lesions."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 1], [60, 40, 20])
    rows = pd.DataFrame(
        {
            "image_id": [f"x/{number}" for number in range(120)],
            "label": np.where(labels, "malignant", "benign"),
            "source": np.repeat(["a", "b"], [100, 20]),
            "modality": "clinical",
            "skin_tone": np.where(np.arange(120) % 3 == 0, None, "II"),
            "scale": np.repeat([512, 128], 60),
            "diagnosis": np.repeat(["nevus", "melanoma"], 60),
            "lesion_id": [None] * 100 + [f"lesion{number // 4}" for number in range(20)],
            "duplicate_group": None,
        }
    )
    return rows, labels, 1 / (1 + np.exp(-generator.normal(labels, 1)))


def test_two_classes() -> None:
    rows, labels, scores = sample()
    members = bootstrap.groups(rows)
    arms = {"real": Predictions(scores), "mixture": Predictions(scores, threshold=0.3)}
    every = subgroups.table(rows, labels, members, arms, ("benign", "malignant"), SETTINGS)
    assert every["arm"].drop_duplicates().to_list() == ["real", "mixture"]
    table = every[every["arm"] == "real"].set_index(["grouping", "group"])
    for grouping in subgroups.GROUPINGS:
        counts = table.loc[grouping, ["images", "malignant"]].sum()
        assert counts.to_list() == [120, 60], grouping
    assert table.loc["skin_tone"].index.to_list() == ["II", "not given"]
    assert table.loc["scale"].index.to_list() == ["128 px", "512 px"]

    whole, first = table.loc[("all", "all")], table.loc[("source", "a")]
    assert whole["lesions"] == 105
    assert whole["auc"] == pytest.approx(roc_auc_score(labels, scores))
    assert first["auc"] == pytest.approx(roc_auc_score(labels[:100], scores[:100]))
    assert first["sensitivity"] == pytest.approx((scores[60:100] >= 0.5).mean())
    assert first["auc_low"] < first["auc"] < first["auc_high"]
    lower = every[(every["arm"] == "mixture") & (every["group"] == "a")].iloc[0]
    assert lower["sensitivity"] == pytest.approx((scores[60:100] >= 0.3).mean())

    few = table.loc[("source", "b")]  # 20 images, but of 5 lesions
    assert few[list(subgroups.FIGURES)].isna().all()
    assert few["note"] == ("no benign images; too few to say: 5 malignant lesions, 10 needed")
    melanoma = table.loc[("diagnosis", "melanoma")]
    assert melanoma["sensitivity"] == pytest.approx((scores[60:] >= 0.5).mean())
    assert melanoma[["auc", "specificity", "accuracy"]].isna().all()
    assert melanoma["note"] == "no benign images"


def test_diagnoses_have_metrics_against_the_rest_and_absent_ones_a_row() -> None:
    rows, labels, scores = sample()
    labels = np.where(labels == 1, 2, 0)
    shares = np.column_stack([1 - scores, 0.1 * scores, 0.9 * scores])
    table = subgroups.table(
        rows,
        labels,
        bootstrap.groups(rows),
        {"real": Predictions(shares)},
        ("nevus", "dermatofibroma", "melanoma"),
        SETTINGS,
    ).set_index(["grouping", "group"])
    absent = table.loc[("diagnosis", "dermatofibroma")]
    assert (absent["images"], absent["note"]) == (0, "no test images")
    melanoma = table.loc[("diagnosis", "melanoma")]
    assert melanoma["auc"] == pytest.approx(roc_auc_score(labels == 2, shares[:, 2]))
    predicted = shares.argmax(axis=1)
    assert melanoma["sensitivity"] == pytest.approx((predicted[labels == 2] == 2).mean())
    assert table.loc[("all", "all"), "accuracy"] == pytest.approx((predicted == labels).mean())
    assert table.loc[("source", "b"), "note"] == "too few to say: 5 lesions, 10 needed"
