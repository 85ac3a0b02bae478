"""Calibration of probabilities: reliability, expected calibration error, temperature scaling.

Pure functions on numpy arrays. `labels` (N,) are class numbers; `probability` is (N,), the
probability of class 1 of two, or (N, K) with rows that sum to 1. A temperature T > 0 divides the
logits: above 1 it lowers confidence, below 1 it raises it. It preserves the order of scores, so it
changes neither AUC nor, at the threshold 0.5, accuracy; it cannot correct for a prevalence that
differs from that of training. Source: Guo et al. 2017 (arXiv 1706.04599), sections 2 and 4.
"""

from __future__ import annotations

import numpy as np

from dermaflux.core.arrays import Array

BINS = 15  # Guo et al. 2017, section 5
LIMITS = (0.05, 20.0)
"""Range of a temperature: perfectly separated images would drive it to 0."""
_SMALLEST = 1e-15


def fit_temperature(labels: Array, probability: Array, balanced: bool = False) -> float:
    """The temperature within `LIMITS` that minimises the log loss; 1 when there are no images.

    With `balanced` every class has the same total weight. Use it for a network trained on balanced
    classes and calibrated on images with the corpus's prevalence; otherwise the temperature would
    treat the difference in prevalence as overconfidence. The loss is convex in 1 / T, so its
    derivative has one root.
    """
    from scipy.optimize import brentq

    if len(labels) == 0:
        return 1.0
    logits = _logits(probability)
    classes = np.asarray(labels, int)
    of_label = np.take_along_axis(logits, classes[:, None], axis=1)[:, 0]
    weights = 1 / np.bincount(classes)[classes] if balanced else np.ones(len(classes))

    def slope(inverse: float) -> float:
        mean = (_softmax(inverse * logits) * logits).sum(axis=1)
        return float(np.average(mean - of_label, weights=weights))

    hottest, coldest = 1 / LIMITS[1], 1 / LIMITS[0]
    if slope(coldest) <= 0:
        return LIMITS[0]
    if slope(hottest) >= 0:
        return LIMITS[1]
    return float(1 / brentq(slope, hottest, coldest, xtol=1e-12))


def apply_temperature(probability: Array, temperature: float) -> Array:
    """Probabilities after temperature scaling, in the shape of `probability`."""
    calibrated = _softmax(_logits(probability) / temperature)
    return calibrated if np.ndim(probability) == 2 else np.asarray(calibrated[:, 1])


def log_loss(labels: Array, probability: Array) -> float:
    """Mean negative log-likelihood in nats per image."""
    logits = _logits(probability)
    of_label = np.take_along_axis(logits, np.asarray(labels, int)[:, None], axis=1)[:, 0]
    return float((np.logaddexp.reduce(logits, axis=1) - of_label).mean())


def outcomes(labels: Array, probability: Array) -> tuple[Array, Array]:
    """Events (N,) of 0 or 1 that calibration is measured on, and their probabilities (N,).

    With two classes the event is class 1; with K it is that the most probable class is correct.
    """
    if np.ndim(probability) == 1:
        return np.asarray(labels, int), probability
    return (probability.argmax(axis=1) == labels).astype(int), probability.max(axis=1)


def bin_numbers(probability: Array, bins: int = BINS) -> Array:
    """(N,) index of the equally wide bin [low, high) of each probability (N,); 1 is in the last."""
    return np.asarray(np.minimum((probability * bins).astype(int), bins - 1))


def reliability(labels: Array, probability: Array, bins: int = BINS) -> dict[str, Array]:
    """The reliability curve: one entry per bin that contains an image.

    `low`, `high`: edges of the bin; `images`: their number; `probability`: their mean; `observed`:
    the fraction of events among them.
    """
    # Not scikit-learn's `calibration_curve`: it returns no counts, which the calibration error
    # needs, and closes bins on the right, which moves `observed` by up to 0.016 on 9,191 scores
    # rounded to two digits (no difference on unrounded ones).
    events, predicted = outcomes(labels, probability)
    index = bin_numbers(predicted, bins)
    images = np.bincount(index, minlength=bins)
    full = np.flatnonzero(images)
    return {
        "low": full / bins,
        "high": (full + 1) / bins,
        "images": images[full],
        "probability": np.bincount(index, weights=predicted, minlength=bins)[full] / images[full],
        "observed": np.bincount(index, weights=events, minlength=bins)[full] / images[full],
    }


def expected_calibration_error(labels: Array, probability: Array, bins: int = BINS) -> float:
    """Mean |observed - probability| over bins, weighted by their images (eq. 3)."""
    curve = reliability(labels, probability, bins)
    gaps = np.abs(curve["observed"] - curve["probability"])
    return float((gaps * curve["images"]).sum() / len(labels))


def _logits(probability: Array) -> Array:
    """(N, K) natural logarithms of probabilities clipped away from 0 and 1; K = 2 for (N,)."""
    clipped = np.clip(np.asarray(probability, np.float64), _SMALLEST, 1 - _SMALLEST)
    if clipped.ndim == 1:
        clipped = np.column_stack([1 - clipped, clipped])
    return np.asarray(np.log(clipped))


def _softmax(logits: Array) -> Array:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
