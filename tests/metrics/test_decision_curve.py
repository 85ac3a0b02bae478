"""Net benefit against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from dermaflux.metrics import decision_curve


def test_net_benefit_counts_harms_at_the_odds_of_the_threshold() -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random(400) < 0.2).astype(int)
    scores = generator.random(400).round(2)  # scores meet thresholds exactly
    curve = decision_curve.curve(labels, scores)
    for index in (0, 9, 49, 98):
        threshold = curve["threshold"][index]
        _, false_positives, _, true_positives = confusion_matrix(
            labels, scores >= threshold
        ).ravel()
        odds = threshold / (1 - threshold)
        net_benefit = (true_positives - odds * false_positives) / 400
        assert curve["model"][index] == pytest.approx(net_benefit)
        everyone = labels.mean() - odds * (1 - labels.mean())
        assert curve["treat_all"][index] == pytest.approx(everyone)
    assert (curve["treat_none"] == 0).all()


def test_limits() -> None:
    labels = np.array([0, 0, 0, 1])
    perfect = decision_curve.curve(labels, labels.astype(float))
    assert perfect["model"] == pytest.approx(0.25)  # the prevalence: no treatment is wasted
    blind = decision_curve.curve(labels, np.full(4, 0.25))
    below = blind["threshold"] <= 0.25
    assert blind["model"][below] == pytest.approx(blind["treat_all"][below])
    assert (blind["model"][~below] == 0).all()
    # Treating all breaks even where the threshold is the prevalence.
    assert blind["treat_all"][24] == pytest.approx(0)
