"""What the figures and names of MLflow runs show, compared with scikit-learn and values by hand."""

from __future__ import annotations

import numpy as np
import pytest
import toy_corpus as toy
from sklearn.metrics import confusion_matrix, roc_auc_score

from dermaflux.classifiers.logging import mlflow_runs, plots

CLASSES = ("benign", "malignant")


def sample(count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = (np.arange(count) % 3 == 0).astype(int)
    return labels, 1 / (1 + np.exp(-generator.normal(2 * labels - 1, 1.5)))


def test_confusion_matrix_shows_the_counts_of_each_label_in_its_row() -> None:
    labels, scores = sample()
    predicted = (scores >= 0.6).astype(int)
    figure = plots.confusion(labels, predicted, CLASSES, "")
    shown = [int(text.get_text().split("\n")[0]) for text in figure.axes[0].texts]
    assert shown == confusion_matrix(labels, predicted).ravel().tolist()


def test_roc_curve_encloses_the_auc_of_its_legend() -> None:
    labels, scores = sample()
    (axes,) = plots.roc(labels, scores, CLASSES, "").axes
    curve = axes.lines[1]
    expected = roc_auc_score(labels, scores)
    assert np.trapezoid(*curve.get_data()[::-1]) == pytest.approx(expected)
    assert curve.get_label() == f"malignant: AUC {expected:.3f}"


def test_figures_of_several_classes_leave_out_what_the_split_lacks() -> None:
    generator = np.random.default_rng(1)
    probability = generator.dirichlet(np.ones(3), 90)
    labels = np.arange(90) % 2  # the third diagnosis does not occur
    names = ("melanoma", "naevus", "wart")
    (axes,) = plots.roc(labels, probability, names, "").axes
    assert [line.get_label().split(":")[0] for line in axes.lines[1:]] == ["melanoma", "naevus"]
    figure = plots.reliability(labels, probability, 1.3, "")
    assert "likeliest" in figure.axes[0].get_xlabel()


def test_learning_curve_of_a_recipe_without_scores_is_the_loss_alone() -> None:
    (axes,) = plots.learning_curve(
        [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}], 2, ""
    ).axes
    assert axes.lines[0].get_ydata().tolist() == [2.0, 1.0]


def test_learning_curve_marks_the_epoch_kept() -> None:
    history = [{"epoch": n, "loss": 1 / n, "validation_auc": 0.5 + n % 3 / 10} for n in (1, 2, 3)]
    _, right = plots.learning_curve(history, 2, "").axes
    assert [list(map(float, line)) for line in right.lines[1].get_data()] == [[2.0], [0.7]]


def test_no_word_of_a_figure_is_cut_off() -> None:
    generator = np.random.default_rng(2)
    labels = (np.arange(2000) % 250 == 0).astype(int)  # rare: ticks of net benefit have 4 digits
    scores = generator.uniform(0, 0.02, 2000)
    losses = [{"epoch": n, "loss": 0.001 / n, "validation_auc": 0.9 + n / 1000} for n in (1, 2, 3)]
    title = "resnext repeated 1:1.75 seed 10"
    diagnoses = ("seborrheic keratosis", "basal cell carcinoma", "melanoma")
    figures = [
        plots.confusion(labels, labels, CLASSES, f"{title}, threshold 50 %"),
        plots.confusion(labels, labels, diagnoses, title),
        plots.reliability(labels, scores, 1.25, title),
        plots.roc(labels, scores, CLASSES, title),
        plots.decision(labels, scores, title),
        plots.learning_curve(losses, 2, title),
    ]
    for figure in figures:
        figure.draw_without_rendering()
        drawn, page = figure.get_tightbbox(), figure.get_size_inches()
        assert np.all(drawn.min >= 0), figure.axes[0].get_xlabel()
        assert np.all(drawn.max <= page), figure.axes[0].get_xlabel()


def test_metrics_are_few_and_the_auc_sorts_first() -> None:
    figures = {"accuracy": 0.7, "accuracy_low": 0.6, "auc": 0.8, "auc_high": 0.9, "note": "x"}
    metrics = mlflow_runs.metric_names(figures)
    assert sorted(metrics) == ["AUC", "AUC_high", "accuracy"]
    assert sorted(mlflow_runs.metric_names({"mauc": 0.8, "accuracy": 0.7}))[0] == "AUC"


@pytest.mark.parametrize(
    ("changes", "arm", "expected"),
    [
        ({"ratio": 1.75, "n_real": 20}, "mixture", "vit mixture 1:1.75 seed 3"),
        ({"ratio": 0.5}, "real", "vit real seed 3"),
        ({"ratio": 0.5}, "random_features", "vit random features seed 3"),
        ({"ratio": 0.5, "real_fraction": 0.1}, "repeated", "vit repeated 10 % 1:0.5 seed 3"),
    ],
)
def test_names_of_runs(changes, arm, expected) -> None:
    parameters = mlflow_runs.arm_parameters(toy.parameters(**changes), "vit", 3, arm)
    assert mlflow_runs.name(parameters) == expected


def test_another_architecture_or_seed_in_the_matrix_changes_no_run() -> None:
    small, large = toy.parameters(), toy.parameters()
    train = {**dict(small.train), "architectures": ["vit"], "seeds": [4, 0]}
    small = small.model_copy(update={"train": type(small.train).model_validate(train)})
    parents = []
    for params in (small, large):
        parameters = mlflow_runs.arm_parameters(params, "vit", 0, "mixture")
        parents.append(mlflow_runs.parent(params, parameters, "train"))
    assert parents[0] == parents[1]
    colours = [
        mlflow_runs.color({**parameters, "architecture": name}) for name in ("vit", "resnext")
    ]
    assert len(set(colours)) == 2


def test_seeds_share_a_parent_and_experiments_do_not(monkeypatch) -> None:
    def key(seed: int, experiment: str | None = None, **changes) -> str:
        monkeypatch.delenv("DVC_EXP_NAME", raising=False)
        if experiment:
            monkeypatch.setenv("DVC_EXP_NAME", experiment)
        params = toy.parameters(**changes)
        parameters = mlflow_runs.arm_parameters(params, "vit", seed, "mixture")
        return mlflow_runs.parent(params, parameters, "evaluate").key

    assert key(0) == key(1)
    others = [key(0, ratio=0.9), key(0, n_real=40), key(0, "boned-lung"), key(0, "tidal-reed")]
    assert len({key(0), *others}) == 5
