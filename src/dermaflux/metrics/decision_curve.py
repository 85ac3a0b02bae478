"""Decision curve analysis: net benefit of treating above a probability threshold.

Pure functions on numpy arrays. A decision threshold t means that missing a malignant lesion is
(1 - t) / t times as bad as treating a benign one. Net benefit is true positives minus false
positives weighted by t / (1 - t), per image (Vickers and Elkin 2006, Medical Decision Making
26:565); treating nobody has net benefit 0. It depends on the prevalence among the images.
"""

from __future__ import annotations

import numpy as np

from dermaflux.core.arrays import Array

THRESHOLDS = np.arange(1, 100) / 100
"""1 % to 99 %."""


def net_benefit(labels: Array, probability: Array, thresholds: Array = THRESHOLDS) -> Array:
    """(T,) net benefit of treating every image whose probability (N,) reaches the threshold."""
    cost = thresholds / (1 - thresholds)
    malignant, benign = (np.sort(probability[labels == label]) for label in (1, 0))
    true_positives = len(malignant) - np.searchsorted(malignant, thresholds)
    false_positives = len(benign) - np.searchsorted(benign, thresholds)
    return np.asarray((true_positives - false_positives * cost) / len(labels))


def treat_all(labels: Array, thresholds: Array = THRESHOLDS) -> Array:
    """(T,) net benefit of treating every image."""
    prevalence = float(np.mean(labels))
    return np.asarray(prevalence - (1 - prevalence) * thresholds / (1 - thresholds))


def curve(labels: Array, probability: Array, thresholds: Array = THRESHOLDS) -> dict[str, Array]:
    """`threshold`, `model`, `treat_all` and `treat_none`, arrays (T,)."""
    return {
        "threshold": thresholds,
        "model": net_benefit(labels, probability, thresholds),
        "treat_all": treat_all(labels, thresholds),
        "treat_none": np.zeros(len(thresholds)),
    }
