"""What a class explains is told from what a description explains, by the benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

TEXTS = ("A symmetrical mole.", "A mole with a slight asymmetry.", "A mole of notable asymmetry.")


@pytest.fixture
def attribute_control(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import attribute_control

    return attribute_control


def rows(levels: list[int], measured: list[float]) -> tuple[list[str], list[dict[str, float]]]:
    values = [{"asymmetry": each, "border": None, "colours": None} for each in measured]
    return [TEXTS[level] for level in levels], values


def test_what_only_the_class_decides_is_no_control(attribute_control: Any) -> None:
    draw = np.random.default_rng(0)
    labels = ["benign"] * 300 + ["malignant"] * 300
    levels = [*draw.choice(3, 300, p=(0.7, 0.2, 0.1)), *draw.choice(3, 300, p=(0.1, 0.2, 0.7))]
    measured = [float(label == "malignant") + draw.normal(0, 0.1) for label in labels]
    found = attribute_control.judged(*rows(levels, measured), labels)
    assert found["all"]["asymmetry"]["value"] > 0.4
    within = found["within"]["asymmetry"]
    assert within["low"] < 0 < within["high"]
    assert within["images"] == 600
    assert found["within"]["border"]["value"] is None


def test_of_one_class_both_are_spearmans_rho(attribute_control: Any) -> None:
    draw = np.random.default_rng(1)
    levels = draw.choice(3, 200)
    measured = [float(level + draw.normal()) for level in levels]
    found = attribute_control.judged(*rows(list(levels), measured), ["benign"] * 200)
    rho = spearmanr(levels, measured).statistic
    for group in ("all", "within"):
        assert found[group]["asymmetry"]["value"] == pytest.approx(rho)
    assert found["within"]["asymmetry"]["high"] == pytest.approx(
        found["all"]["asymmetry"]["high"], abs=0.01
    )


def test_equal_classes_narrow_the_interval_by_the_root_of_two(attribute_control: Any) -> None:
    draw = np.random.default_rng(2)
    levels = list(draw.choice(3, 150))
    measured = [float(level + draw.normal()) for level in levels]
    texts, values = rows(levels * 2, measured * 2)
    found = attribute_control.judged(texts, values, ["benign"] * 150 + ["malignant"] * 150)
    one = attribute_control.judged(texts[:150], values[:150], ["benign"] * 150)
    widths = [
        np.arctanh(each["within"]["asymmetry"]["high"])
        - np.arctanh(each["within"]["asymmetry"]["low"])
        for each in (found, one)
    ]
    assert widths[1] / widths[0] == pytest.approx(2**0.5, rel=0.02)
