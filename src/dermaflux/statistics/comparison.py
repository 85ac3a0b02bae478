"""All arms of a cell on one test set: their metrics, and how each differs from the real arm.

Pure functions on numpy arrays. Every arm is evaluated on the same bootstrap resamples, stratified
by class and clustered by lesion, so differences are paired; the p-value of a difference in AUC is
that of the DeLong test with the same clusters. The intervals cover the variance of the test sample,
not that of training.
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
"""Metrics of `differences`, where the arms have them."""


@dataclass(frozen=True)
class Predictions:
    """Predictions of one arm for N test images."""

    probability: Array
    """(N,) of malignancy, or (N, K) of diagnoses; uncalibrated."""
    temperature: float = 1.0
    threshold: float = 0.5
    """Malignant is predicted from this probability on; of diagnoses, the most probable one is."""

    @property
    def calibrated(self) -> Array:
        """The probabilities after temperature scaling."""
        return calibration.apply_temperature(self.probability, self.temperature)


def figures(
    labels: Array, predictions: Predictions, settings: Evaluate, weights: Array
) -> dict[str, Array]:
    """Every metric of an arm on each resample, arrays (B,)."""
    if predictions.probability.ndim == 2:
        return multiclass.figures(labels, predictions.probability, weights)
    return binary.figures(
        labels,
        predictions.probability,
        predictions.threshold,
        settings.specificities,
        weights,
        settings.sensitivities,
    )


def compare(
    labels: Array,
    groups: Array,
    arms: Mapping[str, Predictions],
    settings: Evaluate,
    baseline: str = "real",
) -> dict[str, dict[str, Any]]:
    """Arm -> metrics with `_low` and `_high`; `differences`: arm -> metrics minus the baseline's.

    `labels` (N,) are class numbers; images of one of the `groups` (N,) are not independent.
    """
    once = np.ones((1, len(labels)), np.int32)
    weights = bootstrap.resamples(labels, groups, settings.bootstrap_samples, seed=0)
    result: dict[str, dict[str, Any]] = {}
    resampled: dict[str, dict[str, Array]] = {}
    for arm, predictions in arms.items():
        malignancy = predictions.probability.ndim == 1
        point = figures(labels, predictions, settings, once)
        resampled[arm] = figures(labels, predictions, settings, weights)
        lesions = rates(labels, groups) if malignancy else {}
        result[arm] = with_intervals(point, resampled[arm], settings.confidence, lesions)
        result[arm] |= _calibrated(labels, predictions)
        if malignancy:
            counts = binary.confusion(labels, predictions.probability, predictions.threshold)
            result[arm] |= {"confusion": counts, "threshold": predictions.threshold}
    result["differences"] = {}
    if baseline in arms:
        for arm in arms:
            if arm != baseline:
                result["differences"][arm] = _difference(
                    labels,
                    groups,
                    (arms[arm], arms[baseline]),
                    (result[arm], result[baseline]),
                    (resampled[arm], resampled[baseline]),
                    settings,
                )
    return result


def with_intervals(
    point: Mapping[str, Array],
    resampled: Mapping[str, Array],
    confidence: float,
    lesions: Mapping[str, int],
) -> dict[str, float]:
    """Flat `name`, `name_low`, `name_high` of metrics (1,) and their resamples (B,).

    `lesions` maps the metrics that are rates to the number of independent lesions of each.
    """
    estimates: dict[str, float] = {}
    for name, values in resampled.items():
        value = float(point[name][0])
        if name == "calibration_error":
            limits = bootstrap.centred_interval(value, values, confidence)
        elif name in lesions and value in (0.0, 1.0):
            limits = bootstrap.unanimous_interval(value, lesions[name], confidence)
        else:
            limits = bootstrap.interval(values, confidence)
        estimates |= {name: value, f"{name}_low": limits[0], f"{name}_high": limits[1]}
    return estimates


def rates(labels: Array, members: Array) -> dict[str, int]:
    """Rates of two classes -> the number of independent lesions in their denominator."""
    benign, malignant = (len(np.unique(members[labels == label])) for label in (0, 1))
    both = len(np.unique(members))
    return {"accuracy": both, "sensitivity": malignant, "specificity": benign}


def _calibrated(labels: Array, predictions: Predictions) -> dict[str, float]:
    """Test metrics that the temperature, fitted on validation images, can change."""
    probability = predictions.calibrated
    metrics = {
        "temperature": predictions.temperature,
        "calibrated_calibration_error": calibration.expected_calibration_error(labels, probability),
        "calibrated_log_loss": calibration.log_loss(labels, probability),
    }
    if probability.ndim == 1:
        metrics["calibrated_brier"] = float(((probability - labels) ** 2).mean())
    return metrics


def _difference(
    labels: Array,
    groups: Array,
    pair: tuple[Predictions, Predictions],
    point: tuple[dict[str, Any], dict[str, Any]],
    resampled: tuple[dict[str, Array], dict[str, Array]],
    settings: Evaluate,
) -> dict[str, float]:
    """The first of a pair minus the second, with percentile intervals of paired resamples.

    `auc_p` comes from the DeLong test; `mauc_p`, for which there is none, from a normal
    distribution with the bootstrap's standard deviation.
    """
    difference: dict[str, float] = {}
    for name in COMPARED:
        if name in resampled[0]:
            values = resampled[0][name] - resampled[1][name]
            difference[name] = point[0][name] - point[1][name]
            limits = bootstrap.interval(values, settings.confidence)
            difference[f"{name}_low"], difference[f"{name}_high"] = limits
            if name == "mauc":
                spread = float(values.std(ddof=1))
                difference["mauc_p"] = delong.two_sided(difference[name], spread)
    if "auc" in difference:
        test = delong.compare(labels, pair[0].probability, pair[1].probability, groups)
        difference |= {"auc_p": test.p, "auc_standard_error": test.standard_error}
    return difference
