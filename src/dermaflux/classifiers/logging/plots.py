"""Figures of a classifier for its MLflow runs: arrays in, matplotlib Figure out, no files.

`labels` (N,) are class numbers; `probability` is (N,), that of malignant, or (N, K), rows that sum
to 1. Every figure is about 500 x 450 pixels when saved at matplotlib's 100 dots per inch.

Margins are fixed where the length of all words is known: a layout engine draws every figure twice,
which took an eighth of the time of `evaluate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dermaflux.core.arrays import Array
from dermaflux.metrics import binary, calibration, decision_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MODEL, _OTHER, _FAINT = "#2f6db3", "#d9772b", "0.75"
_MOST_NAMES = 12  # classes that still have room for their names


def _plot(
    title: str, width: float = 5.0, left: float = 0.85, right: float = 0.2
) -> tuple[Figure, Axes]:
    """Empty axes; the figure's width and the margins beside the axes are in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 4.5), dpi=100)
    figure.subplots_adjust(left / width, 0.12, 1 - right / width, 0.92)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def learning_curve(history: Sequence[Mapping[str, float]], best: int, title: str) -> Figure:
    """Training loss and validation AUC over epochs; `best` is the epoch whose weights are kept.

    Each row of `history` has `epoch`, `loss` and, where epochs were compared, `validation_auc`.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = _plot(title, 6.4, right=0.9)
    epochs = [row["epoch"] for row in history]
    axes.plot(epochs, [row["loss"] for row in history], color=_OTHER, label="training loss")
    axes.set(xlabel="epoch", ylabel="training loss (nats per image)")
    axes.yaxis.label.set_color(_OTHER)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if "validation_auc" in history[0]:
        right = axes.twinx()
        right.spines["top"].set_visible(False)
        values = [row["validation_auc"] for row in history]
        right.plot(epochs, values, color=_MODEL)
        right.plot([best], [values[epochs.index(best)]], "o", color=_MODEL)
        right.set_ylabel("validation AUC (dot: epoch kept)", color=_MODEL)
    return figure


def roc(labels: Array, probability: Array, classes: Sequence[str], title: str) -> Figure:
    """ROC curve; one per class against the rest when there are several."""
    figure, axes = _plot(title)
    axes.plot([0, 1], [0, 1], color=_FAINT, linestyle="--", label="chance: AUC 0.5")
    for name, truth, scores in _against_rest(labels, probability, classes):
        points = binary.roc_points(truth, scores)
        axes.plot(*points.T, label=f"{name}: AUC {binary.auc(truth, scores):.3f}")
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", aspect="equal")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def _against_rest(
    labels: Array, probability: Array, classes: Sequence[str]
) -> list[tuple[str, Array, Array]]:
    """Name, truth (N,) of 0 or 1 and scores (N,) of each class that occurs beside others."""
    if probability.ndim == 1:
        return [(classes[1], labels, probability)]
    columns = [
        (name, (labels == number).astype(int), probability[:, number])
        for number, name in enumerate(classes)
    ]
    return [
        (name, truth, scores) for name, truth, scores in columns if 0 < truth.sum() < len(truth)
    ]


def confusion(labels: Array, predicted: Array, classes: Sequence[str], title: str) -> Figure:
    """Confusion matrix: images in the cells, coloured by their share of the true class."""
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(labels, predicted, labels=range(len(classes)))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = _plot(title, left=1.0)
    if len(classes) > 2:
        figure.set_layout_engine("constrained")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= _MOST_NAMES:
        for row, column in np.ndindex(*counts.shape):
            dark = shares[row, column] > 0.5
            text = f"{counts[row, column]:,}"
            if len(classes) == 2:
                text += f"\n{100 * shares[row, column]:.1f} %"
            axes.text(
                column, row, text, ha="center", va="center", color="white" if dark else "black"
            )
        axes.set_xticks(range(len(classes)), classes, rotation=0 if len(classes) == 2 else 45)
        axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted (images; share of the row)", ylabel="label")
    axes.spines[:].set_visible(False)
    return figure


def reliability(labels: Array, probability: Array, temperature: float, title: str) -> Figure:
    """Observed fraction against predicted probability, uncalibrated and calibrated."""
    figure, axes = _plot(title)
    axes.plot([0, 1], [0, 1], color=_FAINT, linestyle="--")
    tempered = calibration.apply_temperature(probability, temperature)
    curves = {
        "uncalibrated": (probability, _OTHER),
        f"calibrated, temperature {temperature:.2f}": (tempered, _MODEL),
    }
    for name, (predicted, colour) in curves.items():
        curve = calibration.reliability(labels, predicted)
        error = calibration.expected_calibration_error(labels, predicted)
        label = f"{name}: calibration error {error:.3f}"
        axes.plot(curve["probability"], curve["observed"], color=colour, label=label)
        sizes = 10 + 200 * curve["images"] / len(labels)
        axes.scatter(curve["probability"], curve["observed"], sizes, color=colour, alpha=0.6)
    several = probability.ndim == 2
    axes.set(
        xlabel="probability of the likeliest class" if several else "probability of malignant",
        ylabel="observed fraction that is right" if several else "observed malignant fraction",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
    )
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def decision(labels: Array, probability: Array, title: str) -> Figure:
    """Decision curve of calibrated probabilities (N,) of malignant, against treating all or none.

    The axis ends where treating nobody is best by far: below, all curves fall without limit.
    """
    figure, axes = _plot(title)
    curve = decision_curve.curve(labels, probability)
    axes.plot(curve["threshold"], curve["treat_all"], color=_OTHER, label="treat all")
    axes.plot(curve["threshold"], curve["treat_none"], color=_FAINT, label="treat none")
    axes.plot(curve["threshold"], curve["model"], color=_MODEL, label="treat by the model")
    prevalence = float(np.mean(labels))
    axes.set(
        xlabel="decision threshold",
        ylabel="net benefit (malignant treated per image)",
        xlim=(0, 1),
        ylim=(-0.25 * prevalence, 1.1 * prevalence),
    )
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    return figure
