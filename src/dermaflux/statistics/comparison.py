"""All arms of a cell on one test set: their figures, and how each differs from the real arm.

Pure functions on numpy arrays. Every arm is scored on the same bootstrap resamples, stratified by
class and clustered by lesion, so differences are paired; the p-value of a difference in AUC is that
of the DeLong test, clustered likewise. The intervals cover the test sample, not the training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dermaflux.core.arrays import Array
from dermaflux.metrics import binary, calibration, multiclass
from dermaflux.params import Evaluate
from dermaflux.statistics import bootstrap, delong

COMPARED = ("auc", "mauc", "accuracy", "balanced_accuracy", "macro_f1")
"""Figures of `differences`, where the arms have them."""


@dataclass(frozen=True)
class Scored:
    """What one arm made of N test images."""

    probability: Array
    """(N,) of malignancy, or (N, K) of diagnoses; the network's own."""
    temperature: float = 1.0
    threshold: float = 0.5
    """A malignancy from here on is called so; the likeliest diagnosis is called."""

    @property
    def calibrated(self) -> Array:
        """The probabilities at the arm's temperature."""
        return calibration.tempered(self.probability, self.temperature)


def figures(labels: Array, scored: Scored, settings: Evaluate, weights: Array) -> dict[str, Array]:
    """Every figure of an arm on each resample, arrays (B,)."""
    if scored.probability.ndim == 2:
        return multiclass.figures(labels, scored.probability, weights)
    return binary.figures(
        labels,
        scored.probability,
        scored.threshold,
        settings.specificities,
        weights,
        settings.sensitivities,
    )


def compare(
    labels: Array, groups: Array, arms: Mapping[str, Scored], settings: Evaluate
) -> dict[str, dict[str, Any]]:
    """Arm -> figures with `_low` and `_high`, and `differences`: arm -> figures minus the real's.

    `labels` (N,) class numbers and `groups` (N,) of images that are not independent.
    """
    once = np.ones((1, len(labels)), np.int32)
    weights = bootstrap.resamples(labels, groups, settings.bootstrap_samples, seed=0)
    result: dict[str, dict[str, Any]] = {}
    resampled: dict[str, dict[str, Array]] = {}
    for arm, scored in arms.items():
        point = figures(labels, scored, settings, once)
        resampled[arm] = figures(labels, scored, settings, weights)
        over = rates(labels, groups) if scored.probability.ndim == 1 else {}
        result[arm] = with_intervals(point, resampled[arm], settings.confidence, over)
        result[arm] |= _calibrated(labels, scored)
        if scored.probability.ndim == 1:
            counted = binary.confusion(labels, scored.probability, scored.threshold)
            result[arm] |= {"confusion": counted, "threshold": scored.threshold}
    result["differences"] = {}
    if "real" in arms:
        for arm in arms:
            if arm != "real":
                result["differences"][arm] = _difference(
                    labels,
                    groups,
                    (arms[arm], arms["real"]),
                    (result[arm], result["real"]),
                    (resampled[arm], resampled["real"]),
                    settings,
                )
    return result


def with_intervals(
    point: Mapping[str, Array],
    resampled: Mapping[str, Array],
    confidence: float,
    lesions: Mapping[str, int],
) -> dict[str, float]:
    """Flat `name`, `name_low`, `name_high` of figures (1,) and their resamples (B,).

    `lesions` names the figures that are rates, and of how many independent lesions each is one.
    """
    found: dict[str, float] = {}
    for name, values in resampled.items():
        value = float(point[name][0])
        if name == "calibration_error":
            limits = bootstrap.centred_interval(value, values, confidence)
        elif name in lesions and value in (0.0, 1.0):
            limits = bootstrap.unanimous_interval(value, lesions[name], confidence)
        else:
            limits = bootstrap.interval(values, confidence)
        found[name], found[f"{name}_low"], found[f"{name}_high"] = value, *limits
    return found


def rates(labels: Array, members: Array) -> dict[str, int]:
    """Rates of two classes -> how many independent lesions each is taken over."""
    benign, malignant = (len(np.unique(members[labels == side])) for side in (0, 1))
    every = len(np.unique(members))
    return {"accuracy": every, "sensitivity": malignant, "specificity": benign}


def _calibrated(labels: Array, scored: Scored) -> dict[str, float]:
    """What the temperature, fitted on validation images, does to the test figures it can change."""
    probability = scored.calibrated
    found = {
        "temperature": scored.temperature,
        "calibrated_calibration_error": calibration.error(labels, probability),
        "calibrated_log_loss": calibration.log_loss(labels, probability),
    }
    if probability.ndim == 1:
        found["calibrated_brier"] = float(((probability - labels) ** 2).mean())
    return found


def _difference(
    labels: Array,
    groups: Array,
    pair: tuple[Scored, Scored],
    point: tuple[dict[str, Any], dict[str, Any]],
    resampled: tuple[dict[str, Array], dict[str, Array]],
    settings: Evaluate,
) -> dict[str, float]:
    """The first of a pair minus the second, with percentile intervals of paired resamples.

    `auc_p` is of the DeLong test; `mauc_p`, for which there is none, of the normal law with the
    bootstrap's spread.
    """
    found: dict[str, float] = {}
    for name in COMPARED:
        if name in resampled[0]:
            values = resampled[0][name] - resampled[1][name]
            found[name] = point[0][name] - point[1][name]
            limits = bootstrap.interval(values, settings.confidence)
            found[f"{name}_low"], found[f"{name}_high"] = limits
            if name == "mauc":
                found["mauc_p"] = delong.two_sided(found[name], float(values.std(ddof=1)))
    if "auc" in found:
        tested = delong.compare(labels, pair[0].probability, pair[1].probability, groups)
        found["auc_p"], found["auc_standard_error"] = tested.p, tested.standard_error
    return found
