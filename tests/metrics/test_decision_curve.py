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
    found = decision_curve.curve(labels, scores)
    for place in (0, 9, 49, 98):
        threshold = found["threshold"][place]
        _, false, _, true = confusion_matrix(labels, scores >= threshold).ravel()
        odds = threshold / (1 - threshold)
        assert found["model"][place] == pytest.approx((true - odds * false) / 400)
        everyone = labels.mean() - odds * (1 - labels.mean())
        assert found["treat_all"][place] == pytest.approx(everyone)
    assert (found["treat_none"] == 0).all()


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
