"""Wanted, asked for and shown: shares counted by hand, and a pool that shows what it was asked."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dermaflux.audit.faithfulness import coverage


def rows(tones: list[str | None]) -> pd.DataFrame:
    return pd.DataFrame({"skin_tone": tones, "source": "ddi", "diagnosis": None})


def test_shares_are_those_counted_by_hand() -> None:
    training = rows(["I", "II", "III-IV", "V-VI", None])
    pool = rows(["I-II", "I-II", "V-VI", "V-VI"])
    nearest = np.array([0, 2, 3, 4])  # one right, one wrong, one right, one unknown
    held_out = rows(["I-II", "V-VI", None])
    wanted = {"skin_tone": {"I": 0.2, "II": 0.3, "VI": 0.5}}
    found = coverage.report(pool, training, nearest, held_out, np.array([1, 2, 3]), wanted)
    tone = found["skin_tone"]
    by_value = {row["value"]: row for row in tone["values"]}
    assert {value: row["wanted"] for value, row in by_value.items()} == {
        "I-II": 0.5, "III-IV": 0, "V-VI": 0.5,
    }  # fmt: skip
    assert [by_value["I-II"][each]["count"] for each in ("training", "asked", "nearest")] == [
        2,
        2,
        1,
    ]
    assert by_value["I-II"]["nearest"]["of"] == 3
    exact = stats.binomtest(1, 3).proportion_ci(0.95, "exact")
    limits = (by_value["I-II"]["nearest"]["low"], by_value["I-II"]["nearest"]["high"])
    assert limits == pytest.approx((exact.low, exact.high))
    assert (tone["hit"]["count"], tone["hit"]["of"]) == (2, 3)
    # Of the three known: asked 2/3 I-II and 1/3 V-VI, shown a third of each tone.
    assert tone["hit"]["chance"] == pytest.approx(2 / 3 / 3 + 1 / 3 / 3)
    assert (tone["accuracy"]["count"], tone["accuracy"]["of"]) == (1, 2)
    assert tone["distance"]["asked_to_wanted"] == 0
    assert tone["distance"]["nearest_to_wanted"]["value"] == pytest.approx(1 / 3)
    assert tone["distance"]["nearest_to_training"]["value"] == pytest.approx(1 / 6)
    assert found["diagnosis"]["reason"] == "no training image has a diagnosis"
    source = found["source"]
    assert source["values"][0]["nearest"]["value"] == 1
    assert source["values"][0]["asked"]["reason"] == "no image has a value"
    assert "asked_to_wanted" not in source["distance"]


def test_no_synthetic_images_and_no_held_out_ones() -> None:
    nothing = np.empty(0, int)
    found = coverage.report(rows([]), rows(["I", "V"]), nothing, rows([]), nothing)["skin_tone"]
    assert [row["nearest"]["value"] for row in found["values"]] == [None, None]
    assert found["accuracy"]["reason"] == found["hit"]["reason"] == "no image has a value"
    assert found["distance"]["nearest_to_training"]["value"] is None


def test_the_interval_of_the_distance_holds_the_truth() -> None:
    names, truth = ["I-II", "III-IV", "V-VI"], np.array([0.6, 0.3, 0.1])
    asked = {"I-II": 0.4, "III-IV": 0.3, "V-VI": 0.3}
    held = 0
    for seed in range(100):
        drawn = np.random.default_rng(seed).choice(3, 150, p=truth)
        pool = rows([None] * 150)
        found = coverage.report(
            pool, rows(names), drawn, rows([]), np.empty(0, int), {"skin_tone": asked}
        )["skin_tone"]["distance"]["nearest_to_wanted"]
        held += found["low"] <= 0.2 <= found["high"]
    assert held >= 90
