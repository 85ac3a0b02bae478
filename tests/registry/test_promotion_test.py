from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score, roc_curve

from dermaflux.registry import promotion_test
from dermaflux.statistics import bootstrap


def test_figures_agree_with_scikit_learn_and_the_difference_is_paired() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [300, 100])
    logits = labels + rng.normal(size=400)
    # The same ranks within each class, so the difference is nearly certain.
    champion, candidate = expit(logits), expit(logits + 0.2 * labels)
    weights = bootstrap.resamples(labels, np.arange(400), 300, 0)
    test = promotion_test.compare(labels, candidate, champion, weights, 0.9, 0.95)
    assert test.auc.candidate == pytest.approx(roc_auc_score(labels, candidate))
    assert test.auc.champion == pytest.approx(roc_auc_score(labels, champion))
    false, true, _ = roc_curve(labels, candidate, drop_intermediate=False)
    assert test.sensitivity.candidate == pytest.approx(true[false <= 0.1 + 1e-12].max())
    assert test.auc.low > 0
    # Resampled independently, the two AUCs would vary by more than the difference.
    assert test.auc.high - test.auc.low < test.auc.estimate
    same = promotion_test.compare(labels, champion, champion, weights, 0.9, 0.95)
    assert (same.auc.low, same.auc.high, same.sensitivity.estimate) == (0, 0, 0)


@pytest.mark.parametrize(
    ("auc", "sensitivity", "tolerance", "passes", "why"),
    [
        ((0.9, 0.8, 0.02, 0.2), (0.7, 0.7, -0.1, 0.1), 0.0, True, "not worse"),
        ((0.9, 0.8, 0.0, 0.2), (0.8, 0.7, 0.0, 0.2), 0.0, False, "contains zero"),
        ((0.7, 0.8, -0.2, -0.01), (0.8, 0.7, 0.0, 0.2), 0.0, False, "below zero"),
        ((0.9, 0.8, 0.02, 0.2), (0.65, 0.7, -0.1, 0.1), 0.0, False, "fall by 0.0500"),
        ((0.9, 0.8, 0.02, 0.2), (0.65, 0.7, -0.1, 0.1), 0.1, True, "at most 0.1 worse"),
    ],
)
def test_both_conditions_must_hold(
    auc: tuple[float, ...],
    sensitivity: tuple[float, ...],
    tolerance: float,
    passes: bool,
    why: str,
) -> None:
    comparison = promotion_test.Comparison(
        promotion_test.Difference(*auc), promotion_test.Difference(*sensitivity)
    )
    passed, reason = promotion_test.decide(comparison, 0.9, tolerance)
    assert passed is passes
    assert why in reason
