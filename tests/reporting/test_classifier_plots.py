"""What the plots of the classifiers show, read off the matplotlib figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from dermaflux.params.arms import COLOURS, TITLES
from dermaflux.reporting import classifier_plots, plots


@pytest.fixture(autouse=True)
def figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions return the figure in place of its SVG."""
    monkeypatch.setattr(classifier_plots, "svg", lambda figure: figure)


def lines(figure: Any, panel: int = 0) -> dict[str, Any]:
    return {line.get_label(): line for line in figure.axes[panel].lines}


def test_reliability_pools_the_bins_of_the_seeds() -> None:
    rows = {"low": [0.0, 0.5], "images": [10, 30], "probability": [0.2, 0.8], "observed": [0.1, 1]}
    other = {"low": [0.0, 0.5], "images": [30, 0], "probability": [0.4, 0], "observed": [0.5, 0]}
    tables = [
        pd.DataFrame(seed).assign(calibrated=calibrated)
        for seed in (rows, other)
        for calibrated in (False, True)
    ]
    tables[1]["observed"] = 0.25  # calibrated, of the first seed
    figure: Any = classifier_plots.reliability({"mixture": tables})
    assert [axes.get_title() for axes in figure.axes] == ["uncalibrated", "calibrated"]
    uncalibrated, calibrated = (lines(figure, panel)[TITLES["mixture"]] for panel in (0, 1))
    assert uncalibrated.get_xdata() == pytest.approx([0.35, 0.8])
    assert uncalibrated.get_ydata() == pytest.approx([0.4, 1.0])
    assert calibrated.get_ydata() == pytest.approx([0.4375, 0.25])
    assert uncalibrated.get_color() == COLOURS["mixture"]


def test_roc_and_decision_curves_are_means_over_seeds() -> None:
    seeds = [pd.DataFrame({"fpr": [0, x, 1], "tpr": [0, 0.8, 1]}) for x in (0.2, 0.4)]
    mean = lines(classifier_plots.roc({"real": seeds, "repeated": seeds}))[TITLES["real"]]
    at = {round(x, 2): y for x, y in zip(mean.get_xdata(), mean.get_ydata(), strict=True)}
    assert at[0.2] == pytest.approx((0.8 + 0.4) / 2)
    assert at[0.7] == pytest.approx((0.925 + 0.9) / 2)
    shared = {"threshold": [0.1, 0.5], "treat_all": [0.4, 0.0], "treat_none": [0.0, 0.0]}
    models = [pd.DataFrame({**shared, "model": values}) for values in ([0.4, 0.2], [0.2, 0.1])]
    benefit = lines(classifier_plots.decision({"mixture": models}))
    assert benefit[TITLES["mixture"]].get_ydata() == pytest.approx([0.3, 0.15])
    assert np.allclose(benefit["treat all"].get_ydata(), [0.4, 0.0])


def test_the_training_curve_is_a_running_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "svg", lambda figure: figure)
    values = list(np.random.default_rng(0).random(60))
    shown = lines(plots.curve(list(range(60)), values, "loss", ([0, 59], [0.5, 0.4])))
    expected = pd.Series(values).rolling(3).mean()[2:]
    assert shown["training"].get_ydata() == pytest.approx(expected.to_numpy())
    assert list(shown["training"].get_xdata()) == list(range(2, 60))
    assert list(shown["held out"].get_ydata()) == [0.5, 0.4]
