"""Which classifiers of a grid are held against each other, and by how much they differ.

Pure functions on experiments that were read. A contrast is one question asked of one architecture;
those against real images (or another generator) are corrected together for their number, those
against control arms likewise, figure by figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dermaflux.core.arrays import Array
from dermaflux.metrics import metrics
from dermaflux.params import LEARNED, REPEATING
from dermaflux.statistics import bootstrap, delong, effects
from dermaflux.statistics.effects import Effect
from dermaflux.sweeps.outcomes import Arm, Experiment

FIGURES = ("auc", "accuracy", "mauc", "macro_f1")
_THRESHOLD = 0.5


@dataclass(frozen=True)
class Contrast:
    """The arm of one experiment minus an arm of the same or another."""

    architecture: str
    first: tuple[Experiment, str]
    second: tuple[Experiment, str]

    @property
    def against_control(self) -> bool:
        """Whether the second is a control arm, neither real images alone nor another generator."""
        return self.second[1] not in ("real", "mixture")

    @property
    def name(self) -> str:
        """What is held against what."""
        (one, arm), (other, against) = self.first, self.second
        if one is other:
            return f"{one.run.name}: {arm} minus {against}"
        return f"{one.run.name} {arm} minus {other.run.name} {against}"


def of_grid(layout: str, experiments: Sequence[Experiment]) -> list[Contrast]:
    """The contrasts of a layout: generators against each other, or with minus without synthetic."""
    found = []
    for one in experiments:
        for architecture in one.params.train.architectures:
            if layout == "generators":
                other = _same_but_released(one, experiments)
                if other is not None:
                    found.append(Contrast(architecture, (one, "mixture"), (other, "mixture")))
                continue
            against = _without_synthetic(one, architecture, experiments)
            if against is not None:
                found.append(Contrast(architecture, (one, "mixture"), (against, "real")))
                found += [
                    Contrast(architecture, (one, "mixture"), (one, control))
                    for control in REPEATING
                    if (architecture, control) in one.figures
                ]
    return found


def _same_but_released(one: Experiment, experiments: Sequence[Experiment]) -> Experiment | None:
    """The experiment with released images in place of this one's own, all else equal."""
    if one.params.generator != "lora":
        return None
    for other in experiments:
        same = (
            other.params.n_real == one.params.n_real
            and other.n_synthetic == one.n_synthetic
            and other.params.train == one.params.train
        )
        if other.params.generator == "folder" and same:
            return other
    return None


def _without_synthetic(
    one: Experiment, architecture: str, experiments: Sequence[Experiment]
) -> Experiment | None:
    """Where the real arm to hold the mixture against lies; None where there is no such arm.

    Images that are all synthetic (the paper's 0:1) are held against as many real ones (1:0).
    """
    if (architecture, "mixture") not in one.figures or not one.n_synthetic:
        return None
    if (architecture, "real") in one.figures:
        return one
    for other in experiments:
        as_many = other.params.real_fraction is None and other.params.n_real == one.n_synthetic
        if as_many and (architecture, "real") in other.figures:
            return other
    return None


class Resampled:
    """Figures of classifiers on bootstrap resamples of the test images, each computed once."""

    def __init__(self, labels: Array, groups: Array, count: int) -> None:
        self.labels = labels.astype(int)
        self._weights = bootstrap.resamples(self.labels, groups, count, seed=0)
        self._known: dict[tuple[str, bytes], Array] = {}

    def mean(self, figure: str, scores: Array) -> Array:
        """(B,) means over the rows of `scores` (S, N); empty for figures of many classes."""
        return np.asarray(np.mean([self._one(figure, row) for row in scores], axis=0))

    def _one(self, figure: str, row: Array) -> Array:
        key = (figure, row.tobytes())
        if key not in self._known:
            self._known[key] = (
                metrics.bootstrap_auc(self.labels, row, self._weights)
                if figure == "auc"
                else metrics.threshold_figures(self.labels, row, _THRESHOLD, self._weights)[figure]
            )
        return self._known[key]


def measure(
    contrasts: Sequence[Contrast], resampled: Resampled | None, confidence: float
) -> dict[str, list[tuple[Effect, float]]]:
    """Figure -> effect of each contrast and its p-value corrected for their number (Holm).

    Intervals hold all at once with `confidence`. Without `resampled` they cover the seeds alone.
    """
    found: dict[str, list[tuple[Effect, float]]] = {}
    for figure in FIGURES:
        sides = [
            (_values(one, one.first, figure), _values(one, one.second, figure)) for one in contrasts
        ]
        if not sides or any(first is None or second is None for first, second in sides):
            continue
        measured = []
        for contrast, (first, second) in zip(contrasts, sides, strict=True):
            assert first is not None
            assert second is not None
            means = np.empty(0)
            if resampled is not None:
                key = contrast.architecture
                ((one, arm), (other, against)) = contrast.first, contrast.second
                means = resampled.mean(figure, one.scores[key, arm]) - resampled.mean(
                    figure, other.scores[key, against]
                )
            seeds = min(len(first), len(second))
            differences = first[:seeds] - second[:seeds]
            measured.append(effects.effect(differences, means, confidence, len(contrasts)))
        corrected = effects.holm([effect.p for effect in measured])
        found[figure] = list(zip(measured, corrected, strict=True))
    return found


def _values(contrast: Contrast, side: tuple[Experiment, str], figure: str) -> Array | None:
    """(S,) figure of each seed, None where the grid does not have it."""
    experiment, arm = side
    per_seed = experiment.figures[contrast.architecture, arm]
    if any(figure not in one for one in per_seed):
        return None
    return np.array([float(one[figure]) for one in per_seed])


def best(experiment: Experiment) -> tuple[Arm, int]:
    """The classifier of the best validation AUC: architecture, arm and place among the seeds."""
    choices = [
        (float(figures["validation_auc"]), key, place)
        for key, per_seed in experiment.figures.items()
        if key[1] in LEARNED
        for place, figures in enumerate(per_seed)
    ]
    _, key, place = max(choices, key=lambda choice: choice[0])
    return key, place


def against_zero_shot(
    labels: Array, trained: Array, models: Mapping[str, Array], groups: Array
) -> dict[str, tuple[delong.Comparison, float]]:
    """Model -> AUC of a trained classifier minus the model's, and its Holm-corrected DeLong p."""
    found = [delong.compare(labels.astype(int), trained, own, groups) for own in models.values()]
    corrected = effects.holm([one.p for one in found])
    return {name: (one, p) for name, one, p in zip(models, found, corrected, strict=True)}
