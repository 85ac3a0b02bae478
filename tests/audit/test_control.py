"""Asked against measured: closed forms, permuted captions, and images that do what they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dermaflux.audit.faithfulness import control
from dermaflux.audit.faithfulness.control import agreement, permuted, report, spearman

BORDERS = ("The border is smooth.", "It has a few small notches at the border.",
           "The border is irregular.", "The border is jagged.")  # fmt: skip


def images(count: int, slope: float, seed: int) -> tuple[list[str], list[dict[str, float | None]]]:
    """Prompts of a random level, and borders that follow it as much as `slope` says."""
    draw = np.random.default_rng(seed)
    levels = draw.integers(0, 4, count)
    measured = slope * levels + draw.normal(size=count)
    texts = [BORDERS[level] for level in levels]
    return texts, [{"asymmetry": None, "border": value, "colours": None} for value in measured]


def test_rho_is_scipys_and_its_interval_that_of_the_formula_and_holds_the_truth() -> None:
    rows = np.random.default_rng(0).normal(size=(2, 30))
    found = spearman(rows[0], rows[1])
    rho = float(stats.spearmanr(*rows).statistic)
    assert found.value == pytest.approx(rho)
    error = np.sqrt((1 + rho**2 / 2) / 27)
    limits = np.tanh(np.arctanh(rho) + stats.norm.ppf([0.025, 0.975]) * error)
    assert found[1:] == pytest.approx(limits, rel=1e-4)
    # Of a bivariate normal rho is 6 / pi asin(r / 2) (Pearson 1907).
    held, r = 0, 0.6
    truth = 6 / np.pi * np.arcsin(r / 2)
    for seed in range(200):
        x, e = np.random.default_rng(seed).normal(size=(2, 80))
        each = spearman(x, r * x + np.sqrt(1 - r**2) * e)
        held += each.low <= truth <= each.high
    assert 0.91 <= held / 200 <= 0.99


def test_a_class_with_permuted_captions_has_no_rho_and_the_other_keeps_its_own() -> None:
    texts, measured = images(300, 1.5, 0)
    labels = ["benign"] * 150 + ["malignant"] * 150
    mixed = texts[:150] + list(np.random.default_rng(1).permutation(texts[150:]))
    rows = report(mixed, labels, measured, ["benign", "malignant"])
    assert rows["benign"]["border"]["low"] > 0.7
    planted = rows["malignant"]["border"]
    assert planted["low"] < 0 < planted["high"]
    assert abs(planted["value"]) < 0.2
    assert rows["malignant"]["border"]["images"] == 150
    shuffled = permuted(texts, labels)
    assert sorted(shuffled[:150]) == sorted(texts[:150])  # within the class
    assert abs(agreement(shuffled, measured)["border"]["value"]) < 0.15


def test_what_has_no_rho_says_why() -> None:
    texts, measured = images(40, 1.0, 3)
    rows = agreement(texts, measured)
    assert rows["asymmetry"]["value"] is None
    assert "of 40 texts 0 state it, and it was measured of 0 images" in rows["asymmetry"]["reason"]
    assert rows["border"]["images"] == rows["border"]["of"] == 40
    same = agreement([BORDERS[0]] * 40, measured)["border"]
    assert same["reason"] == "every text states the same level"
    assert agreement([], [])["border"]["value"] is None
    few = agreement(texts[:9], measured[:9])["border"]
    assert few["reason"].startswith(f"needs {control.MINIMUM} images")
