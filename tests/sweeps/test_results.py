"""Rows, verdicts and curves of a grid's page, and what the paper states beside them."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score
from test_contrasts import IMAGES, LABELS, experiment, parameters

from dermaflux.params.arms import COLOURS, TITLES
from dermaflux.sweeps import arm_rows, curves, results
from dermaflux.sweeps.grid import Grid, Run
from dermaflux.sweeps.outcomes import Experiment
from dermaflux.sweeps.published import Published

AUC = {"real": [0.70, 0.71, 0.72], "repeated": [0.71, 0.72, 0.73], "mixture": [0.80, 0.81, 0.82]}
PUBLISHED = [
    {"at": {"ratio": 1}, "architecture": "vit", "figure": "auc", "value": 0.859},
    {
        "at": {"ratio": 1},
        "over": {"ratio": 0},
        "architecture": "vit",
        "figure": "auc",
        "value": 0.03,
    },
]


def at(ratio: float, **changes: Any) -> Experiment:
    unnamed = experiment(f"demo-ratio-{ratio}", parameters(ratio=ratio, **changes), AUC)
    return dataclasses.replace(unnamed, run=Run(unnamed.run.name, {"ratio": ratio}, {}))


def page(definition: Grid, experiments: list[Experiment]) -> dict[str, Any]:
    return results._page("demo", definition, experiments, np.arange(len(IMAGES)), [], "0" * 40)


def grid(layout: str, **content: Any) -> Grid:
    return Grid.model_validate(
        {"description": "d", "source": "s", "runs": [{}], "layout": layout, **content}
    )


def test_a_published_difference_is_shown_for_its_effect_only(tmp_path: Path) -> None:
    # Without scores the intervals cover the seeds alone, over which these differences are constant.
    experiments = [dataclasses.replace(at(ratio), scores={}) for ratio in (0, 1)]
    content = page(grid("ratios", published=PUBLISHED), experiments)
    question, controls = content["families"].values()
    assert [row["published"] for row in question] == [0.03, None]  # vit, resnext
    assert [row["verdict"] for row in question] == ["helps", "helps"]
    assert {row["published"] for row in controls} == {None}
    assert {row["verdict"] for row in controls} == {"better"}
    shown = [(row["architecture"], row["arm"], row["ratio"]) for row in content["rows"]
              if row["published"] == {"auc": 0.859}]  # fmt: skip
    assert shown == [("vit", "mixture", 1.0)]
    results._write(tmp_path / "page", content)
    rows = pd.read_csv(tmp_path / "page" / "table.csv")
    assert rows["published_auc"].dropna().to_list() == [0.859]
    mixture = rows[(rows["arm"] == "mixture") & (rows["ratio"] == 1)]
    assert mixture["auc"].to_list() == pytest.approx([0.81, 0.81])
    assert (mixture["auc_low"] < 0.81).all()


def test_each_contrast_stands_under_its_own_question() -> None:
    arms = {arm: [0.7, 0.8, 0.9] for arm in ("real", "mixture", "repeated", "scratch")}
    content = page(grid("ratios"), [experiment("demo-1", parameters(), arms)])
    found = {
        question: {row["name"] for row in rows} for question, rows in content["families"].items()
    }
    assert found == {
        "Do synthetic images help?": {"demo-1: mixture minus real"},
        "Do they help more than repeating or augmenting real images?": {
            "demo-1: mixture minus repeated"
        },
        "Do pretrained weights help?": {"demo-1: real minus scratch"},
    }


def test_a_published_difference_of_generators_needs_both_sides() -> None:
    names = ("first", "second", "third")
    experiments = [
        dataclasses.replace(
            experiment(name, parameters(generator=name), {"mixture": AUC["mixture"]}),
            run=Run(name, {"generator": name}, {}),
        )
        for name in names
    ]
    difference = {
        "at": {"generator": "first"},
        "over": {"generator": "third"},
        "architecture": "vit",
        "figure": "auc",
        "value": 0.01,
    }
    content = page(grid("generators", published=[difference]), experiments)
    (rows,) = content["families"].values()
    published = {row["name"]: row["published"] for row in rows if row["architecture"] == "vit"}
    assert published == {
        "first mixture minus second mixture": None,
        "first mixture minus third mixture": 0.01,
        "second mixture minus third mixture": None,
    }


def test_zero_shot_rows_are_metrics_of_the_models() -> None:
    scores = np.random.default_rng(0).random(len(LABELS))
    each = at(1)
    for values in each.metrics.values():
        for value in values:
            value |= {"accuracy": 0.5, "majority_accuracy": 0.797}
    content = page(grid("zero_shot"), [dataclasses.replace(each, zero_shot={"model": scores})])
    (row,) = content["zero_shot"]["models"]
    assert row["accuracy"] == accuracy_score(LABELS, scores >= 0.5)
    assert [row["majority_accuracy"] for row in content["rows"]] == [0.797] * len(each.metrics)
    assert content["zero_shot"]["best"] == f"vit-{each.params.train.seeds[2]}/mixture"


def test_rows_count_the_synthetic_images_that_an_arm_shows() -> None:
    arms = dict.fromkeys(("real", "repeated", "mixture", "no_teacher", "scratch"), [0.7, 0.8, 0.9])
    rows = arm_rows.rows(grid("ratios"), [experiment("one", parameters(), arms)], 0.95)
    shown = {row["arm"]: (row["n_synthetic"], row["ratio"]) for row in rows}
    assert shown == {
        "real": (0, 0),
        "repeated": (0, 1),
        "mixture": (100, 1),
        "no_teacher": (100, 1),
        "scratch": (0, 0),
    }


def test_curves_are_drawn_where_something_varies() -> None:
    titles = {"auc": "ROC-AUC"}
    rows = arm_rows.rows(grid("ratios"), [at(0), at(1)], 0.95)
    plot = curves.over_ratio(rows, ["auc"], titles)
    assert plot is not None
    assert plot == curves.over_ratio(rows, ["auc"], titles)
    text = plot.decode()
    for label in ("100 real", "100 real, repeated", "synthetic images per real image"):
        assert f">{label}</text>" in text
    assert curves.over_ratio(rows[:6], ["auc"], titles) is None
    alone = at(1, n_real=0, n_synthetic=60)
    rows = arm_rows.rows(grid("ratios"), [at(0), at(1), alone], 0.95)
    assert math.isinf(max(row["ratio"] for row in rows))
    assert b">60 synthetic alone</text>" in (curves.over_ratio(rows, ["auc"], titles) or b"")


def test_curves_over_fractions_have_the_colours_of_the_arms() -> None:
    fractions = [at(1, real_fraction=share, n_synthetic=60) for share in (0.1, 1.0)]
    rows = arm_rows.rows(grid("low_data"), fractions, 0.95)
    text = (curves.over_ratio(rows, ["auc"], {"auc": "ROC-AUC"}) or b"").decode()
    used = set(re.findall(r"stroke: (#[0-9a-f]{6})", text))
    assert {COLOURS["real"], COLOURS["mixture"]} <= used
    assert COLOURS["repeated"] not in used


def test_two_generators_have_a_curve_each_over_fractions() -> None:
    both = [
        at(1, real_fraction=share, n_synthetic=60, generator=name)
        for name in ("first", "second")
        for share in (0.1, 1.0)
    ]
    rows = arm_rows.rows(grid("low_data"), both, 0.95)
    text = (curves.over_ratio(rows, ["auc"], {"auc": "ROC-AUC"}) or b"").decode()
    mixture = TITLES["mixture"]
    for label in (TITLES["real"], f"{mixture}, first", f"{mixture}, second"):
        assert text.count(f">{label}</text>") == 1
    one = arm_rows.rows(grid("low_data"), both[:2], 0.95)
    assert f">{mixture}</text>" in (curves.over_ratio(one, ["auc"], {"auc": "a"}) or b"").decode()


def test_a_figure_stated_of_an_arm_stands_beside_that_arm() -> None:
    stated = [
        {"at": {"ratio": 1}, "architecture": "vit", "arm": "real", "figure": "auc", "value": 0.555},
        {"at": {"ratio": 1}, "architecture": "vit", "figure": "auc", "value": 0.923},
    ]
    rows = arm_rows.rows(grid("ratios", published=stated), [at(1)], 0.95)
    shown = {row["arm"]: row["published"] for row in rows if row["architecture"] == "vit"}
    assert shown == {"real": {"auc": 0.555}, "repeated": {}, "mixture": {"auc": 0.923}}


def test_figures_beside_published_ones_are_means_over_seeds_and_their_differences() -> None:
    stated = [
        {"at": {"ratio": 1}, "architecture": "vit", "figure": "auc", "value": 0.7},
        {"at": {"ratio": 1}, "over": {"ratio": 0}, "architecture": "vit", "figure": "auc",
         "value": 0.1},
        {"at": {"ratio": 2}, "architecture": "vit", "figure": "auc", "value": 0.9},
    ]  # fmt: skip
    definition: Any = SimpleNamespace(published=[Published.model_validate(each) for each in stated])
    experiments: Any = [
        SimpleNamespace(
            run=SimpleNamespace(overrides={"ratio": ratio, "n_real": 5}),
            n_synthetic=5 * ratio,
            metrics={("vit", arm): [{"auc": value} for value in values]},
        )
        for ratio, arm, values in ((0, "real", (0.5, 0.7)), (1, "mixture", (0.65, 0.75)))
    ]
    rows = arm_rows.stated(definition, experiments, 0.95)
    assert [row["value"] for row in rows] == pytest.approx([0.7, 0.1])
    # Student's t with one degree of freedom: 12.706 standard errors of 0.05.
    assert rows[0]["high"] - rows[0]["value"] == pytest.approx(12.7062 * 0.05, rel=1e-4)
    assert rows[1]["over"] == {"ratio": 0}
