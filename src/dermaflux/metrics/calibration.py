"""Whether probabilities mean what they say, and the one number that makes them say it better.

Pure functions on numpy arrays. `labels` (N,) are class numbers and `probability` is (N,), that of
class 1 of two, or (N, K), rows that sum to 1. A temperature T > 0 divides the logits: above 1 it
takes confidence away, below 1 it adds some. It moves no order, so it changes neither AUC nor, at
the threshold 0.5, accuracy; nor can it mend a prevalence that training did not have.
Source: Guo et al. 2017 (arXiv 1706.04599), sections 2 and 4.
"""

from __future__ import annotations

import numpy as np

from dermaflux.core.arrays import Array

BINS = 15  # Guo et al. 2017, section 5
LIMITS = (0.05, 20.0)
"""A temperature is held inside: images told apart without a fault would drive it to 0."""
_SMALLEST = 1e-15


def temperature(labels: Array, probability: Array, balanced: bool = False) -> float:
    """The temperature in `LIMITS` of least log loss; 1 for no images.

    With `balanced` every class weighs alike. A network that learned from classes in equal number
    is judged so on images with the corpus's prevalence; else the temperature would pass that
    difference off as too much confidence. The loss is convex in 1 / T, so its slope has one root.
    """
    from scipy.optimize import brentq

    if len(labels) == 0:
        return 1.0
    logits = _logits(probability)
    numbers = np.asarray(labels, int)
    own = np.take_along_axis(logits, numbers[:, None], axis=1)[:, 0]
    weights = 1 / np.bincount(numbers)[numbers] if balanced else np.ones(len(numbers))

    def slope(inverse: float) -> float:
        mean = (_softmax(inverse * logits) * logits).sum(axis=1)
        return float(np.average(mean - own, weights=weights))

    hottest, coldest = 1 / LIMITS[1], 1 / LIMITS[0]
    if slope(coldest) <= 0:
        return LIMITS[0]
    if slope(hottest) >= 0:
        return LIMITS[1]
    return float(1 / brentq(slope, hottest, coldest, xtol=1e-12))


def tempered(probability: Array, temperature: float) -> Array:
    """Probabilities at a temperature, in the shape given."""
    calibrated = _softmax(_logits(probability) / temperature)
    return calibrated if np.ndim(probability) == 2 else np.asarray(calibrated[:, 1])


def log_loss(labels: Array, probability: Array) -> float:
    """Mean negative log-likelihood in nats per image."""
    logits = _logits(probability)
    own = np.take_along_axis(logits, np.asarray(labels, int)[:, None], axis=1)[:, 0]
    return float((np.logaddexp.reduce(logits, axis=1) - own).mean())


def outcomes(labels: Array, probability: Array) -> tuple[Array, Array]:
    """What reliability is judged on: events (N,) of 0 or 1 and their probabilities (N,).

    Of two classes the event is class 1; of K the event is that the likeliest class is right.
    """
    if np.ndim(probability) == 1:
        return np.asarray(labels, int), probability
    return (probability.argmax(axis=1) == labels).astype(int), probability.max(axis=1)


def bin_numbers(probability: Array, bins: int = BINS) -> Array:
    """(N,) number of the equally wide bin that each probability (N,) falls into."""
    return np.asarray(np.minimum((probability * bins).astype(int), bins - 1))


def reliability(labels: Array, probability: Array, bins: int = BINS) -> dict[str, Array]:
    """The reliability curve: one entry per bin that holds an image.

    `low`, `high`: the bin; `images`: how many; `probability`: their mean; `observed`: the share of
    events among them.
    """
    events, said = outcomes(labels, probability)
    number = bin_numbers(said, bins)
    images = np.bincount(number, minlength=bins)
    full = np.flatnonzero(images)
    return {
        "low": full / bins,
        "high": (full + 1) / bins,
        "images": images[full],
        "probability": np.bincount(number, weights=said, minlength=bins)[full] / images[full],
        "observed": np.bincount(number, weights=events, minlength=bins)[full] / images[full],
    }


def error(labels: Array, probability: Array, bins: int = BINS) -> float:
    """Expected calibration error: mean |observed - probability| over images (eq. 3)."""
    curve = reliability(labels, probability, bins)
    gaps = np.abs(curve["observed"] - curve["probability"])
    return float((gaps * curve["images"]).sum() / len(labels))


def _logits(probability: Array) -> Array:
    """(N, K) natural logarithms of probabilities kept from 0 and 1; two columns for (N,)."""
    held = np.clip(np.asarray(probability, np.float64), _SMALLEST, 1 - _SMALLEST)
    if held.ndim == 1:
        held = np.column_stack([1 - held, held])
    return np.asarray(np.log(held))


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
