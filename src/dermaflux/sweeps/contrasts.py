"""Which classifiers of a grid are compared with each other, and by how much they differ.

Pure functions on experiments that were read. A contrast asks one question of one architecture.
Contrasts with real images (or between two generators) are corrected together for their number,
metric by metric; those with control arms likewise, and those that ask for the gain of pretrained
weights or of a teacher.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dermaflux.core.arrays import Array
from dermaflux.metrics import binary
from dermaflux.params import LEARNED, REPEATING
from dermaflux.statistics import bootstrap, delong, effects
from dermaflux.statistics.effects import Effect
from dermaflux.sweeps.outcomes import Arm, Experiment
from dermaflux.sweeps.pools import PER_IMAGE

METRICS = ("auc", "accuracy", "mauc", "macro_f1")
_THRESHOLD = 0.5
_PER_CLASSIFIER = ("n_real", "real_fraction", "train")
"""Parameters that decide a classifier and have no part in making the synthetic images."""


@dataclass(frozen=True)
class Contrast:
    """The arm of one experiment minus an arm of the same or another experiment."""

    architecture: str
    first: tuple[Experiment, str]
    second: tuple[Experiment, str]

    @property
    def against_control(self) -> bool:
        """Whether a control arm takes part: neither n_real images alone nor a mixture."""
        return not {self.first[1], self.second[1]} <= {"real", "mixture"}

    @property
    def name(self) -> str:
        """The two sides in words."""
        (experiment, arm), (other, other_arm) = self.first, self.second
        if experiment is other:
            return f"{experiment.run.name}: {arm} minus {other_arm}"
        return f"{experiment.run.name} {arm} minus {other.run.name} {other_arm}"


def of_grid(layout: str, experiments: Sequence[Experiment]) -> list[Contrast]:
    """The contrasts of a layout: between generators, or with and without what an experiment adds.

    That is synthetic images, pretrained weights or a teacher.
    """
    if layout == "generators":
        return _between_generators(experiments)
    contrasts = []
    for experiment in experiments:
        for architecture in experiment.params.architectures():
            baseline = _without_synthetic(experiment, architecture, experiments)
            mixture = (experiment, "mixture")
            pairs = [("real", "scratch"), ("mixture", "no_teacher")]
            if baseline is not None:
                contrasts.append(Contrast(architecture, mixture, (baseline, "real")))
                pairs += [("mixture", control) for control in (*REPEATING, "shuffled", "more_real")]
                pairs += [("more_real", "real")]
            contrasts += [
                Contrast(architecture, (experiment, first), (experiment, second))
                for first, second in pairs
                if {(architecture, first), (architecture, second)} <= experiment.metrics.keys()
            ]
    return contrasts


def _between_generators(experiments: Sequence[Experiment]) -> list[Contrast]:
    """Mixtures that differ in nothing but their generator, in the grid's order: first minus later.

    An experiment whose pool has the same hash as the other's shows the same images, however its
    parameters differ, so there is nothing to compare.
    """
    return [
        Contrast(architecture, (first, "mixture"), (second, "mixture"))
        for first, second in itertools.combinations(experiments, 2)
        if first.n_synthetic == second.n_synthetic > 0
        and _parameters(first, _PER_CLASSIFIER) == _parameters(second, _PER_CLASSIFIER)
        and _parameters(first, PER_IMAGE) != _parameters(second, PER_IMAGE)
        and (first.pool is None or first.pool != second.pool)
        for architecture in first.params.architectures()
        if (architecture, "mixture") in first.metrics.keys() & second.metrics.keys()
    ]


def _parameters(experiment: Experiment, sections: Sequence[str]) -> dict[str, Any]:
    parameters = experiment.params.model_dump(include=set(sections))
    # How many images a pool has does not change how they look.
    parameters.get("synthesize", {}).pop("images", None)
    return parameters


def _without_synthetic(
    experiment: Experiment, architecture: str, experiments: Sequence[Experiment]
) -> Experiment | None:
    """The experiment whose real arm the mixture is compared with; None when there is none.

    Images that are all synthetic (the paper's 0:1) are compared with as many real ones (1:0).
    """
    if (architecture, "mixture") not in experiment.metrics or not experiment.n_synthetic:
        return None
    if (architecture, "real") in experiment.metrics:
        return experiment
    for other in experiments:
        params = other.params
        as_many = params.real_fraction is None and params.n_real == experiment.n_synthetic
        if as_many and (architecture, "real") in other.metrics:
            return other
    return None


class Resampled:
    """Metrics of classifiers on bootstrap resamples of the test images, each computed once."""

    def __init__(self, labels: Array, groups: Array, count: int) -> None:
        self.labels = labels.astype(int)
        self._weights = bootstrap.resamples(self.labels, groups, count, seed=0)
        self._computed: dict[tuple[str, bytes], Array] = {}

    def mean(self, metric: str, scores: Array) -> Array:
        """(B,) means over the rows of `scores` (S, N), on B resamples."""
        return np.asarray(np.mean(self.by_seed(metric, scores), axis=0))

    def by_seed(self, metric: str, scores: Array) -> Array:
        """(S, B) of each row of `scores` (S, N), on B resamples."""
        return np.array([self._of_row(metric, row) for row in scores])

    def _of_row(self, metric: str, row: Array) -> Array:
        key = (metric, row.tobytes())
        if key not in self._computed:
            self._computed[key] = (
                binary.bootstrap_auc(self.labels, row, self._weights)
                if metric == "auc"
                else binary.threshold_figures(self.labels, row, _THRESHOLD, self._weights)[metric]
            )
        return self._computed[key]


def measure(
    contrasts: Sequence[Contrast], resampled: Resampled | None, confidence: float
) -> dict[str, list[tuple[Effect, float]]]:
    """Metric -> effect of each contrast and its p-value corrected for their number (Holm).

    Intervals are simultaneous at `confidence`. Without `resampled` they cover the seeds alone.
    """
    measured: dict[str, list[tuple[Effect, float]]] = {}
    for metric in METRICS:
        sides = [
            (_values(contrast, contrast.first, metric), _values(contrast, contrast.second, metric))
            for contrast in contrasts
        ]
        if not sides or any(first is None or second is None for first, second in sides):
            continue
        differences = []
        for contrast, (first, second) in zip(contrasts, sides, strict=True):
            assert first is not None
            assert second is not None
            means = np.empty(0)
            if resampled is not None:
                (experiment, arm), (other, other_arm) = contrast.first, contrast.second
                means = resampled.mean(
                    metric, experiment.scores[contrast.architecture, arm]
                ) - resampled.mean(metric, other.scores[contrast.architecture, other_arm])
            seeds = min(len(first), len(second))
            differences.append(
                effects.effect(first[:seeds] - second[:seeds], means, confidence, len(contrasts))
            )
        corrected = effects.holm([effect.p for effect in differences])
        measured[metric] = list(zip(differences, corrected, strict=True))
    return measured


def _values(contrast: Contrast, side: tuple[Experiment, str], metric: str) -> Array | None:
    """(S,) metric of each seed, None where the grid does not have it."""
    experiment, arm = side
    per_seed = experiment.metrics[contrast.architecture, arm]
    if any(metric not in values for values in per_seed):
        return None
    return np.array([float(values[metric]) for values in per_seed])


def best(experiment: Experiment) -> tuple[Arm, int]:
    """The classifier of the best validation AUC: architecture and arm, and index of its seed."""
    candidates = [
        (float(values["validation_auc"]), key, index)
        for key, per_seed in experiment.metrics.items()
        if key[1] in LEARNED
        for index, values in enumerate(per_seed)
    ]
    _, key, index = max(candidates, key=lambda candidate: candidate[0])
    return key, index


def against_zero_shot(
    labels: Array, trained: Array, models: Mapping[str, Array], groups: Array
) -> dict[str, tuple[delong.Comparison, float]]:
    """Model -> AUC of a trained classifier minus the model's, and its Holm-corrected DeLong p."""
    comparisons = [
        delong.compare(labels.astype(int), trained, scores, groups) for scores in models.values()
    ]
    corrected = effects.holm([comparison.p for comparison in comparisons])
    return dict(zip(models, zip(comparisons, corrected, strict=True), strict=True))
