"""The promotion test: candidate against champion on the same validation images.

Two conditions: the interval of the candidate's AUC gain lies above zero, and its sensitivity at a
fixed specificity is not worse by more than a tolerance. The first prevents promotion on noise; the
second prevents a better ranking elsewhere on the ROC curve from costing malignant lesions at the
operating point. Both classifiers are evaluated on the same bootstrap resamples, so the comparison
is paired. Pure functions on numpy arrays.
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
    sensitivity: Difference


def compare(
    labels: Array,
    candidate: Array,
    champion: Array,
    weights: Array,
    specificity: float,
    confidence: float,
) -> Comparison:
    """Compare probabilities (N,) for labels (N,) in {0, 1} on resamples `weights` (B, N)."""
    figures = [_figures(labels, scores, specificity, weights) for scores in (candidate, champion)]
    differences = []
    for ours, theirs in zip(*figures, strict=True):
        low, high = bootstrap.interval(ours[1:] - theirs[1:], confidence)
        differences.append(Difference(float(ours[0]), float(theirs[0]), low, high))
    return Comparison(*differences)


def _figures(labels: Array, scores: Array, specificity: float, weights: Array) -> list[Array]:
    """AUC and sensitivity (1 + B,): of the original sample, then of each resample."""
    rows = np.concatenate([np.ones((1, len(labels)), weights.dtype), weights])
    values = binary.figures(labels, scores, 0.5, [specificity], rows)
    return [values["auc"], values[f"sensitivity_at_{specificity * 100:g}"]]


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


def format_difference(difference: Difference, metric: str, confidence: float) -> str:
    """`AUC 0.9 against 0.8: difference +0.1, 95% interval [+0.05, +0.15]`."""
    return (
        f"{metric} {difference.candidate:.4f} against {difference.champion:.4f}: difference "
        f"{difference.estimate:+.4f}, {confidence:.0%} interval [{difference.low:+.4f}, "
        f"{difference.high:+.4f}]"
    )
