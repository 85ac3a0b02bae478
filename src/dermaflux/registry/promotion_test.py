"""The promotion test: the best of several candidates against the champion, on the same images.

Two conditions: the interval of the candidate's AUC gain lies above zero, and its sensitivity at a
fixed specificity is not worse by more than a tolerance. The first prevents promotion on noise; the
second prevents a better ranking elsewhere on the ROC curve from costing malignant lesions at the
operating point. All classifiers are evaluated on the same bootstrap resamples, so the comparison
is paired.

The best of many equal candidates looks better than each of them is, so the interval of its gain is
simultaneous with those of all the others (`statistics.bootstrap.simultaneous_intervals`): the
probability to promote any of them when none is better than the champion is at most
(1 - confidence) / 2, however many they are (`benchmarks/promotion.py` counts it).
Pure functions on numpy arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dermaflux.core.arrays import Array
from dermaflux.metrics import binary
from dermaflux.statistics import bootstrap


@dataclass(frozen=True)
class Difference:
    """A metric of the candidate, of the champion, and the interval of their difference."""

    candidate: float
    champion: float
    low: float
    high: float

    @property
    def estimate(self) -> float:
        """Candidate minus champion."""
        return self.candidate - self.champion


@dataclass(frozen=True)
class Comparison:
    """Both differences between a candidate and the champion."""

    auc: Difference
    """Its interval holds for all candidates at once."""
    sensitivity: Difference
    candidates: int = 1
    """How many there were to choose from."""


def compare(
    labels: Array,
    candidates: Array,
    champion: Array,
    weights: Array,
    specificity: float,
    confidence: float,
) -> Comparison:
    """Compare the first of `candidates` (K, N) with the champion (N,), both probabilities.

    `labels` (N,) in {0, 1}; `weights` (B, N) are the resamples. The other candidates are those that
    the first was chosen from.
    """
    first, theirs = (
        _figures(labels, scores, specificity, weights) for scores in (candidates[0], champion)
    )
    aucs = [first[0], *(_aucs(labels, scores, weights) for scores in candidates[1:])]
    gains = np.stack(aucs) - theirs[0]
    low, high = bootstrap.simultaneous_intervals(gains[:, 0], gains[:, 1:], confidence)
    auc = Difference(float(first[0][0]), float(theirs[0][0]), float(low[0]), float(high[0]))
    limits = bootstrap.interval(first[1][1:] - theirs[1][1:], confidence)
    sensitivity = Difference(float(first[1][0]), float(theirs[1][0]), *limits)
    return Comparison(auc, sensitivity, len(candidates))


def _figures(labels: Array, scores: Array, specificity: float, weights: Array) -> list[Array]:
    """AUC and sensitivity (1 + B,): of the original sample, then of each resample."""
    values = [
        binary.figures(labels, scores, 0.5, [specificity], rows)
        for rows in (_once(labels), weights)
    ]
    names = ("auc", f"sensitivity_at_{specificity * 100:g}")
    return [np.concatenate([part[name] for part in values]) for name in names]


def _aucs(labels: Array, scores: Array, weights: Array) -> Array:
    """AUC (1 + B,): of the original sample, then of each resample."""
    parts = [binary.bootstrap_auc(labels, scores, rows) for rows in (_once(labels), weights)]
    return np.concatenate(parts)


def _once(labels: Array) -> Array:
    """The weights (1, N) of the original sample."""
    return np.ones((1, len(labels)), np.int32)


def decide(comparison: Comparison, specificity: float, tolerance: float) -> tuple[bool, str]:
    """Whether the candidate passes, and why, as the end of a sentence."""
    auc, sensitivity = comparison.auc, comparison.sensitivity
    operating_point = f"sensitivity at {specificity:.0%} specificity"
    if auc.low <= 0:
        where = "lies below zero" if auc.high < 0 else "contains zero"
        return False, f"the interval of the AUC difference {where}"
    if sensitivity.estimate < -tolerance:
        return False, (
            f"{operating_point} would fall by {-sensitivity.estimate:.4f}, more than the "
            f"{tolerance:g} that promote.sensitivity_tolerance allows"
        )
    change = "not worse" if sensitivity.estimate >= 0 else f"at most {tolerance:g} worse"
    return True, (
        f"the interval of the AUC difference lies above zero and {operating_point} is {change}"
    )


def format_difference(
    difference: Difference, metric: str, confidence: float, candidates: int = 1
) -> str:
    """`AUC 0.9 against 0.8: difference +0.1, 95% interval [+0.05, +0.15]`."""
    simultaneous = f" for {candidates:,} candidates at once" if candidates > 1 else ""
    return (
        f"{metric} {difference.candidate:.4f} against {difference.champion:.4f}: difference "
        f"{difference.estimate:+.4f}, {confidence:.0%} interval{simultaneous} "
        f"[{difference.low:+.4f}, {difference.high:+.4f}]"
    )
