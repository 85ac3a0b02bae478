"""Candidate against champion on the same validation images: what promotion is decided by.

Two conditions: the candidate's AUC is better by a difference whose interval lies above zero, and
its sensitivity at a fixed specificity is not worse by more than a tolerance. The first keeps
promotion from chasing noise; the second keeps a better ranking elsewhere on the curve from costing
malignant lesions where the classifier would be used. Both are scored on the same bootstrap
resamples, so what the images have in common cancels. Pure functions on numpy arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dermaflux.core.arrays import Array
from dermaflux.metrics import binary
from dermaflux.statistics import bootstrap


@dataclass(frozen=True)
class Difference:
    """A figure of the candidate, of the champion, and the interval of their difference."""

    candidate: float
    champion: float
    low: float
    high: float

    @property
    def estimate(self) -> float:
        """Candidate minus champion."""
        return self.candidate - self.champion


@dataclass(frozen=True)
class Contest:
    """Both comparisons of a candidate with the champion."""

    auc: Difference
    sensitivity: Difference


def hold(
    labels: Array,
    candidate: Array,
    champion: Array,
    weights: Array,
    specificity: float,
    confidence: float,
) -> Contest:
    """Compare probabilities (N,) of labels (N,) in {0, 1} on resamples `weights` (B, N)."""
    figures = [_figures(labels, scores, specificity, weights) for scores in (candidate, champion)]
    found = []
    for ours, theirs in zip(*figures, strict=True):
        low, high = bootstrap.interval(ours[1:] - theirs[1:], confidence)
        found.append(Difference(float(ours[0]), float(theirs[0]), low, high))
    return Contest(*found)


def _figures(labels: Array, scores: Array, specificity: float, weights: Array) -> list[Array]:
    """AUC and sensitivity (1 + B,): of the sample itself, then of each resample."""
    rows = np.concatenate([np.ones((1, len(labels)), weights.dtype), weights])
    found = binary.figures(labels, scores, 0.5, [specificity], rows)
    return [found["auc"], found[f"sensitivity_at_{specificity * 100:g}"]]


def verdict(contest: Contest, specificity: float, tolerance: float) -> tuple[bool, str]:
    """Whether the candidate wins, and why, as the end of a sentence."""
    auc, sensitivity = contest.auc, contest.sensitivity
    least = f"sensitivity at {specificity:.0%} specificity"
    if auc.low <= 0:
        side = "lies below zero" if auc.high < 0 else "holds zero"
        return False, f"the interval of the AUC difference {side}"
    if sensitivity.estimate < -tolerance:
        return False, (
            f"{least} would fall by {-sensitivity.estimate:.4f}, more than the {tolerance:g} that "
            "promote.sensitivity_tolerance allows"
        )
    kept = "not worse" if sensitivity.estimate >= 0 else f"at most {tolerance:g} worse"
    return True, f"the interval of the AUC difference lies above zero and {least} is {kept}"


def told(difference: Difference, what: str, confidence: float) -> str:
    """`AUC 0.9 against 0.8: difference +0.1, 95% interval [+0.05, +0.15]`."""
    return (
        f"{what} {difference.candidate:.4f} against {difference.champion:.4f}: difference "
        f"{difference.estimate:+.4f}, {confidence:.0%} interval [{difference.low:+.4f}, "
        f"{difference.high:+.4f}]"
    )
