"""Which classifiers of a grid are compared, and the differences against reference libraries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, roc_auc_score

from dermaflux.params import Params, load
from dermaflux.statistics import bootstrap, effects
from dermaflux.sweeps import contrasts
from dermaflux.sweeps.grid import Run
from dermaflux.sweeps.outcomes import Experiment

SHIPPED = load.load(Path(__file__).parents[2] / "params.yaml")
LABELS = np.arange(40) % 2
IMAGES = [f"image-{number}" for number in range(len(LABELS))]


def parameters(**changes: Any) -> Params:
    """Two architectures and three seeds; unchecked, so that a generator can have any name."""
    train = SHIPPED.train.model_copy(update={"architectures": ["vit", "resnext"]})
    return SHIPPED.model_copy(update={"train": train, "n_real": 100, "ratio": 1.0, **changes})


def experiment(
    name: str, params: Params, arms: Mapping[str, list[float]], pool: str | None = None
) -> Experiment:
    """An experiment whose arms have the given AUC of each seed, and noisy scores."""
    generator = np.random.default_rng(len(name))
    metrics, scores = {}, {}
    for architecture in params.train.architectures:
        for arm, values in arms.items():
            key = (architecture, arm)
            metrics[key] = [{"auc": value, "validation_auc": value} for value in values]
            noise = generator.normal(size=(len(values), len(LABELS)))
            scores[key] = 1 / (1 + np.exp(-(LABELS + noise)))
    return Experiment(
        Run(name, {}, {}), params, metrics, scores, IMAGES, LABELS.astype(bool), pool=pool
    )


def names(layout: str, experiments: list[Experiment]) -> list[str]:
    return [f"{each.architecture} {each.name}" for each in contrasts.of_grid(layout, experiments)]


def test_generators_of_any_name_are_compared_where_nothing_else_differs() -> None:
    arms = {"mixture": [0.7, 0.8, 0.9]}
    revised = SHIPPED.backbone.model_copy(update={"revision": "another"})
    few = SHIPPED.synthesize.model_copy(update={"images": 300})
    train = parameters().train
    other_seeds = train.model_copy(update={"seeds": [7, 8, 9]})
    first = experiment("a", parameters(generator="first"), arms, "hash of a")
    second = experiment("b", parameters(generator="second"), arms, "hash of b")
    for architecture in ("vit", "resnext"):
        assert f"{architecture} a mixture minus b mixture" in names("generators", [first, second])
    assert names("generators", [second, first])[0] == "vit b mixture minus a mixture"
    retrained = experiment("c", parameters(generator="first", backbone=revised), arms, "hash of c")
    assert len(names("generators", [first, second, retrained])) == 2 * 3
    for alike, pool in (
        (parameters(generator="second"), "hash of a"),
        (parameters(generator="second", n_synthetic=60), "hash of d"),
        (parameters(generator="second", n_real=60), "hash of d"),
        (parameters(generator="second", train=other_seeds), "hash of d"),
        (parameters(generator="first", synthesize=few), "hash of d"),
    ):
        assert names("generators", [first, experiment("d", alike, arms, pool)]) == []
    assert len(names("generators", [first, experiment("d", parameters(generator="x"), arms)])) == 2


def test_a_mixture_is_compared_with_real_images_and_controls() -> None:
    values = [0.7, 0.8, 0.9]
    whole = experiment(
        "whole", parameters(), {"real": values, "mixture": values, "repeated": values}
    )
    without = experiment("without", parameters(ratio=0.0), {"real": values, "mixture": values})
    synthetic = experiment("synthetic", parameters(n_real=0, n_synthetic=100), {"mixture": values})
    compared = contrasts.of_grid("ratios", [whole, without, synthetic])
    assert [each.name for each in compared if each.architecture == "vit"] == [
        "whole: mixture minus real",
        "whole: mixture minus repeated",
        "synthetic mixture minus whole real",
    ]
    assert [each.against_control for each in compared[:2]] == [False, True]
    arms = dict.fromkeys(("real", "scratch", "mixture", "no_teacher"), values)
    added = names("ratios", [experiment("added", parameters(), arms)])
    assert [name.removeprefix("vit added: ") for name in added if name.startswith("vit")] == [
        "mixture minus real",
        "real minus scratch",
        "mixture minus no_teacher",
    ]
    arms = dict.fromkeys(("real", "mixture", "shuffled", "more_real", "real_x2"), values)
    added = names("ratios", [experiment("added", parameters(), arms)])
    assert [name.removeprefix("vit added: ") for name in added if name.startswith("vit")] == [
        "mixture minus real",
        "mixture minus shuffled",
        "mixture minus more_real",
        "more_real minus real",
    ]
    alone = experiment("alone", parameters(n_real=0, n_synthetic=90), {"mixture": values})
    assert contrasts.of_grid("ratios", [whole, alone])[-1].first[0] is whole


def test_effects_over_seeds_are_paired_t_tests_corrected_by_holm() -> None:
    real, better, other = [0.70, 0.72, 0.71], [0.75, 0.78, 0.74], [0.71, 0.72, 0.735]
    first = experiment("first", parameters(), {"real": real, "mixture": better})
    second = experiment("second", parameters(), {"real": real, "mixture": other})
    compared = [
        contrasts.Contrast("vit", (each, "mixture"), (each, "real")) for each in (first, second)
    ]
    measured = contrasts.measure(compared, None, 0.95)
    assert list(measured) == ["auc"]
    raw = []
    for (effect, _), values in zip(measured["auc"], (better, other), strict=True):
        reference = stats.ttest_rel(values, real)
        limits = reference.confidence_interval(1 - 0.05 / 2)
        assert effect.value == pytest.approx(np.mean(values) - np.mean(real))
        assert (effect.low, effect.high) == pytest.approx((limits.low, limits.high))
        raw.append(reference.pvalue)
    assert raw[0] < raw[1]
    assert [p for _, p in measured["auc"]] == pytest.approx([2 * raw[0], max(2 * raw[0], raw[1])])


def test_resampled_metrics_are_those_of_scikit_learn_and_enter_the_interval() -> None:
    arms = {"real": [0.70, 0.72], "mixture": [0.75, 0.78]}
    each = experiment("each", parameters(), arms)
    compared = [contrasts.Contrast("vit", (each, "mixture"), (each, "real"))]
    groups = np.arange(len(LABELS))
    resampled = contrasts.Resampled(LABELS, groups, 50)
    scores = each.scores["vit", "mixture"]
    weights = bootstrap.resamples(LABELS, groups, 50, seed=0)
    for metric, reference in (
        ("auc", roc_auc_score),
        ("accuracy", lambda labels, row: accuracy_score(labels, row >= 0.5)),
    ):
        for number in (0, 31):
            rows = np.repeat(groups, weights[number])
            expected = np.mean([reference(LABELS[rows], row[rows]) for row in scores])
            assert resampled.mean(metric, scores)[number] == pytest.approx(expected)
    over_images = resampled.mean("auc", scores) - resampled.mean("auc", each.scores["vit", "real"])
    expected = effects.effect(np.array([0.05, 0.06]), over_images, 0.95)
    (effect, p), *_ = contrasts.measure(compared, resampled, 0.95)["auc"]
    assert (effect.low, effect.high, p) == pytest.approx((expected.low, expected.high, expected.p))


def test_the_best_by_validation_leaves_out_frozen_networks() -> None:
    arms = {"real": [0.7, 0.9, 0.8], "random_features": [0.99, 0.99, 0.99]}
    assert contrasts.best(experiment("each", parameters(), arms)) == (("vit", "real"), 1)


def test_zero_shot_models_are_compared_by_auc_and_corrected_together() -> None:
    generator = np.random.default_rng(0)
    trained = LABELS + generator.normal(size=len(LABELS))
    models = {name: generator.normal(size=len(LABELS)) for name in ("first", "second")}
    groups = np.arange(len(LABELS))
    together = contrasts.against_zero_shot(LABELS, trained, models, groups)
    singly = {
        name: contrasts.against_zero_shot(LABELS, trained, {name: scores}, groups)[name][1]
        for name, scores in models.items()
    }
    for name, scores in models.items():
        expected = roc_auc_score(LABELS, trained) - roc_auc_score(LABELS, scores)
        assert together[name][0].difference == pytest.approx(expected)
    low, high = sorted(singly.values())
    assert sorted(p for _, p in together.values()) == pytest.approx([2 * low, max(2 * low, high)])
