"""The questions that a grid's page asks, and the effects that answer them. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dermaflux.statistics.effects import Effect
from dermaflux.sweeps import arm_rows, contrasts
from dermaflux.sweeps.arm_rows import TITLES
from dermaflux.sweeps.contrasts import Contrast, Resampled
from dermaflux.sweeps.grid import Grid
from dermaflux.sweeps.outcomes import Experiment
from dermaflux.sweeps.published import Published

if TYPE_CHECKING:
    from dermaflux.core.arrays import Array

_QUESTIONS = {
    "generators": "Which generator's images train better classifiers?",
    "synthetic": "Do synthetic images help?",
    "controls": "Do they help more than repeating or augmenting real images?",
    "shuffled": "Do they help more than the same images with shuffled labels?",
    "more_real": "What would as many further real images gain?",
    "scratch": "Do pretrained weights help?",
    "no_teacher": "Does the teacher help?",
}


def answered(
    definition: Grid, experiments: Sequence[Experiment], groups: Array, level: float
) -> dict[str, list[dict[str, Any]]]:
    """Question -> its effects; experiments of different labels are not compared."""
    kinds = list(dict.fromkeys(experiment.params.train.labels for experiment in experiments))
    questions = {}
    for labels in kinds:
        alike = [each for each in experiments if each.params.train.labels == labels]
        compared = contrasts.of_grid(definition.layout, alike)
        resampled = None
        if compared and all(experiment.scores for experiment in alike):
            count = alike[0].params.evaluate.bootstrap_samples
            resampled = Resampled(alike[0].labels, groups, count)
        suffix = f" ({labels})" if len(kinds) > 1 else ""
        for question, family in _families(definition, compared):
            if family:
                effects = _effects(definition, family, resampled, level)
                questions[_QUESTIONS[question] + suffix] = effects
    return questions


def _families(definition: Grid, compared: Sequence[Contrast]) -> list[tuple[str, list[Contrast]]]:
    first = "generators" if definition.layout == "generators" else "synthetic"

    def question(contrast: Contrast) -> str:
        for arm in (contrast.second[1], contrast.first[1]):
            if arm in _QUESTIONS:
                return arm
        return "controls" if contrast.against_control else first

    names = (first, "controls", "shuffled", "more_real", "scratch", "no_teacher")
    return [(name, [each for each in compared if question(each) == name]) for name in names]


def _states(published: Published, contrast: Contrast) -> bool:
    """Whether a published difference is that of a contrast."""
    (first, _), (second, arm) = contrast.first, contrast.second
    if arm == "mixture" and not published.over.items() <= second.run.overrides.items():
        return False
    return arm_rows.matches(published, first) and not contrast.against_control


def _effects(
    definition: Grid, compared: Sequence[Contrast], resampled: Resampled | None, level: float
) -> list[dict[str, Any]]:
    """One row per metric and contrast: the effect, its verdict and what the paper states."""
    rows = []
    for metric, effects in contrasts.measure(compared, resampled, level).items():
        for contrast, (effect, corrected) in zip(compared, effects, strict=True):
            differences = [
                published.value
                for published in definition.published
                if published.over
                and published.figure == metric
                and published.architecture == contrast.architecture
                and _states(published, contrast)
            ]
            rows.append(
                {
                    "metric": TITLES[metric],
                    "architecture": contrast.architecture,
                    "name": contrast.name,
                    "value": effect.value,
                    "low": effect.low,
                    "high": effect.high,
                    "p": corrected,
                    "comparisons": len(compared),
                    "over_images": resampled is not None,
                    "seeds": effect.seeds,
                    "published": differences[0] if differences else None,
                    "verdict": _verdict(contrast, effect, corrected, 1 - level),
                }
            )
    return rows


def _verdict(contrast: Contrast, effect: Effect, corrected: float, alpha: float) -> str:
    question = (contrast.first[1], contrast.second[1]) == ("mixture", "real")
    higher, lower, neither = (
        ("helps", "harms", "no clear effect")
        if question
        else ("better", "worse", "no clear difference")
    )
    if math.isnan(corrected):
        return "no interval"
    if corrected >= alpha:
        return neither
    return higher if effect.value > 0 else lower
