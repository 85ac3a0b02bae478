from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score, roc_curve

from dermaflux.metrics import binary
from dermaflux.registry import promotion_test
from dermaflux.statistics import bootstrap


def test_figures_agree_with_scikit_learn_and_the_difference_is_paired() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [300, 100])
    logits = labels + rng.normal(size=400)
    # The same ranks within each class, so the difference is nearly certain.
    champion, candidate = expit(logits), expit(logits + 0.2 * labels)
    weights = bootstrap.resamples(labels, np.arange(400), 300, 0)
    test = promotion_test.compare(labels, candidate[None], champion, weights, 0.9, 0.95)
    assert test.auc.candidate == pytest.approx(roc_auc_score(labels, candidate))
    assert test.auc.champion == pytest.approx(roc_auc_score(labels, champion))
    false, true, _ = roc_curve(labels, candidate, drop_intermediate=False)
    assert test.sensitivity.candidate == pytest.approx(true[false <= 0.1 + 1e-12].max())
    assert test.auc.low > 0
    # With nothing to choose from, the plain percentile interval of the difference.
    values = [binary.bootstrap_auc(labels, scores, weights) for scores in (candidate, champion)]
    plain = np.quantile(values[0] - values[1], [0.025, 0.975])
    assert (test.auc.low, test.auc.high) == pytest.approx(tuple(plain))
    # Resampled independently, the two AUCs would vary by more than the difference.
    assert test.auc.high - test.auc.low < test.auc.estimate
    same = promotion_test.compare(labels, champion[None], champion, weights, 0.9, 0.95)
    assert (same.auc.low, same.auc.high, same.sensitivity.estimate) == (0, 0, 0)


def test_the_best_of_twenty_equal_candidates_is_promoted_as_seldom_as_one_would_be() -> None:
    """`benchmarks/promotion.py` is the same at full length."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [60, 40])
    weights = bootstrap.resamples(labels, np.arange(100), 120, 0)
    promoted = {"as if alone": 0, "of twenty": 0}

    def lower_limit(scores: np.ndarray, champion: np.ndarray) -> float:
        return promotion_test.compare(labels, scores, champion, weights, 0.9, 0.95).auc.low

    simulations = 120
    for _ in range(simulations):
        # Classifiers agree on what is difficult: errors correlate by 0.7.
        difficulty, own = rng.normal(size=100), rng.normal(size=(21, 100))
        logits = 1.5 * labels + np.sqrt(0.7) * difficulty + np.sqrt(0.3) * own
        aucs = [binary.auc(labels, row) for row in logits[1:]]
        best_first = expit(logits[1:][np.argsort(aucs)[::-1]])
        promoted["as if alone"] += lower_limit(best_first[:1], expit(logits[0])) > 0
        promoted["of twenty"] += lower_limit(best_first, expit(logits[0])) > 0
    rates = {name: count / simulations for name, count in promoted.items()}
    assert rates["as if alone"] > 0.12
    # 0.025, and three standard errors of so many simulations.
    assert rates["of twenty"] < 0.025 + 3 * np.sqrt(0.025 * 0.975 / simulations)
    better = np.concatenate([expit(logits[:1] + 1.5 * labels), best_first])
    assert lower_limit(better, expit(logits[0])) > 0


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
