"""Effects in words, and the number of comparisons they are corrected for."""

from __future__ import annotations

import numpy as np
import pytest

from dermaflux.reporting import effect_table
from dermaflux.statistics import effects
from dermaflux.statistics.seed_means import SeedMean

ARMS = ["real", "mixture", "repeated", "augmented", "random_features"]


def means(**values: float):
    """AUCs of one architecture over three seeds; a difference has a standard error of 0.01."""
    generator = np.random.default_rng(0)
    by_arm = {}
    for arm, value in values.items():
        seeds = value + np.array([-0.002, 0.0, 0.002])
        by_arm["vit", arm] = {"auc": SeedMean(seeds, value + generator.normal(0, 0.007, 500))}
    return by_arm


@pytest.mark.parametrize(
    ("mixture", "repeated", "augmented", "expected"),
    [
        (
            0.9,
            0.80,
            0.81,
            "they help, and more than repeating real images and more than strong augmentation",
        ),
        (
            0.9,
            0.80,
            0.895,
            "they help, and more than repeating real images, but not demonstrably more than strong "
            "augmentation",
        ),
        (
            0.9,
            0.91,
            0.9,
            "they help, but not demonstrably more than repeating real images or strong "
            "augmentation",
        ),
        (0.7, 0.8, 0.8, "they harm: a change of −"),
        (0.801, 0.8, 0.8, "no clear effect: the results are compatible with any change from −"),
    ],
)
def test_the_answer_names_the_controls(
    mixture: float, repeated: float, augmented: float, expected: str
) -> None:
    auc = means(
        real=0.8, mixture=mixture, repeated=repeated, augmented=augmented, random_features=0.6
    )
    rows = effect_table.table(auc, ["vit"], ARMS, "auc", 0.95)
    answer = effect_table.answer(rows, "vit")
    assert answer is not None
    assert answer.startswith(expected)
    alone = effect_table.table(auc, ["vit"], ["real", "mixture"], "auc", 0.95)
    if mixture == 0.9:
        assert effect_table.answer(alone, "vit") == (
            "they help; no control was trained to compare the gain with"
        )
    assert effect_table.answer(rows, "resnext") is None


def test_families_are_corrected_separately() -> None:
    auc = means(real=0.8, mixture=0.83, repeated=0.8, augmented=0.81, random_features=0.6)
    both = {**auc, **{("resnext", arm): value for (_, arm), value in auc.items()}}
    rows = effect_table.table(both, ["vit", "resnext"], ARMS, "auc", 0.95)
    question = [row for row in rows if (row.arm, row.against) == ("mixture", "real")]
    assert [row.comparisons for row in question] == [2, 2]
    assert {row.comparisons for row in rows if row not in question} == {10}
    alone = both["vit", "mixture"]["auc"].minus(both["vit", "real"]["auc"], 0.95, 1)
    assert question[0].p == pytest.approx(min(1, 2 * alone.p))
    wide = both["vit", "mixture"]["auc"].minus(both["vit", "real"]["auc"], 0.975, 1)
    assert question[0].effect.low == pytest.approx(wide.low)
    others = [row for row in rows if row not in question]
    assert [row.p for row in others] == pytest.approx(
        effects.holm([row.effect.p for row in others])
    )
    lower = next(row for row in others if row.arm == "random_features")
    assert lower.verdict == "lower"


def test_the_ceiling_and_the_floor_have_rows_of_their_own_and_sizes_have_none() -> None:
    arms = ["real", "mixture", "more_real", "shuffled", "real_x2"]
    auc = means(real=0.8, mixture=0.9, more_real=0.95, shuffled=0.7, real_x2=0.95)
    rows = effect_table.table(auc, ["vit"], arms, "auc", 0.95)
    assert [(row.arm, row.against, row.verdict) for row in rows] == [
        ("mixture", "real", "helps"),
        ("more_real", "real", "higher"),
        ("mixture", "shuffled", "higher"),
        ("mixture", "more_real", "lower"),
    ]
    answer = "they help, and more than the same images with shuffled labels"
    assert effect_table.answer(rows, "vit") == answer


def test_what_pretrained_weights_gain_is_a_contrast_of_its_own() -> None:
    auc = means(real=0.8, scratch=0.6, mixture=0.8, repeated=0.8)
    rows = effect_table.table(auc, ["vit"], [*ARMS[:3], "scratch"], "auc", 0.95)
    pairs = {(row.arm, row.against): row for row in rows}
    assert ("scratch", "real") not in pairs
    gain = pairs["real", "scratch"]
    assert gain.effect.value == pytest.approx(0.2, abs=0.02)
    assert (gain.verdict, gain.comparisons) == ("higher", 3)


def test_a_question_that_could_not_be_answered_says_so() -> None:
    rows = effect_table.table(
        means(real=0.8, mixture=0.801), ["vit"], ["real", "mixture"], "auc", 0.95
    )
    assert [row.verdict for row in rows] == ["no clear effect"]
    (row,) = effect_table.judged(rows, ["vit"])
    assert row.verdict == "could not be seen"
    answer = effect_table.answer([row], "vit")
    assert answer is not None
    assert answer.startswith("this run could not have seen it: the results are compatible with")
    assert effect_table.judged(rows, []) == rows
    assert row.detectable == pytest.approx(0.03, abs=0.006)  # 2.8 standard errors of 0.01
