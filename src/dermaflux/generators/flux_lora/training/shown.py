"""What is sampled while the adapter trains, to be looked at. Pure.

Two sheets of the same number of images: what the adapter learns from, the first captions of each
class at the smallest training scale and the guidance of training; and what the pool will be made
of, at the scale, steps, guidance and kind of prompt of `synthesize`. The second says whether
training is on a way to useful images, the first whether it learns its captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dermaflux.captions.text.label import label_sentence
from dermaflux.core.seeds import derived_seed
from dermaflux.core.vocabulary import CLASSES
from dermaflux.generators.protocol import Condition

if TYPE_CHECKING:
    from dermaflux.generators.data.images import Sample
    from dermaflux.params import Synthesize

EACH = 2
"""Images of each class in a sheet."""


def of_training(samples: Sequence[Sample], seed: int) -> list[Condition]:
    """The first captions of each class at the smallest training scale."""
    scale = min(sample.scale for sample in samples)
    return [
        Condition(sample.label, sample.caption, scale, derived_seed(seed, "grid", number))
        for number, sample in enumerate(_first(samples))
    ]


def of_pool(samples: Sequence[Sample], synthesize: Synthesize, seed: int) -> list[Condition]:
    """The same images' classes as `synthesize` asks for them, from the same noise seeds.

    Their captions stand for prompts of a file.
    """
    return [
        Condition(
            sample.label,
            _prompt(sample, synthesize),
            synthesize.scale,
            derived_seed(seed, "grid", number),
        )
        for number, sample in enumerate(_first(samples))
    ]


def _first(samples: Sequence[Sample]) -> list[Sample]:
    return [
        sample for label in CLASSES for sample in [s for s in samples if s.label == label][:EACH]
    ]


def _prompt(sample: Sample, synthesize: Synthesize) -> str:
    if synthesize.prompt_source != "label":
        return sample.caption
    named = sample.diagnosis if synthesize.conditions == "diagnosis" else None
    return label_sentence(sample.label, named)
