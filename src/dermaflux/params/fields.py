"""The types that sections of the parameters are made of."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from dermaflux.errors import quoted

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
OpenFraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]
Scale = Literal[128, 256, 512]
Class = Literal["benign", "malignant"]
Label = Literal["benign", "malignant", "indeterminate"]
Licence = Literal["CC0", "CC-BY", "CC-BY-NC", "CC-BY-NC-ND", "research-only", "own"]
Modality = Literal["dermoscopic", "clinical", "tile"]
# YAML has no tuples, and strict validation would refuse a list for one.
FractionRange = Annotated[tuple[Fraction, Fraction], Field(strict=False)]


WHOLE_NUMBER = r"(\d+)(?:[.,]0*)?(?:[eE][+-]?0+)?"
"""A whole number as columns of integers or floats have it: 2, 2., 2.0, 2,0 or 2.000e+00."""


@lru_cache(maxsize=1 << 10)
def label_word(text: str) -> str:
    """A label's word as tables and mappings are compared: without case, and numbers by value.

    ``1``, ``01``, ``1.0``, ``TRUE`` and ``yes`` are one word, as are ``0``, ``false`` and ``no``.
    """
    word = text.strip().casefold()
    if match := re.fullmatch(WHOLE_NUMBER, word):
        return match[1].lstrip("0") or "0"
    return {"true": "1", "yes": "1", "false": "0", "no": "0"}.get(word, word)


def _as_words(labels: Any) -> Any:
    """Keys that YAML reads as numbers or truth values, as words."""
    if not isinstance(labels, dict):
        return labels
    words: dict[Any, Any] = {}
    meant: dict[str, tuple[Any, Any]] = {}
    for key, label in labels.items():
        if not isinstance(key, str | int | float):
            raise ValueError(f"labels has the key {quoted(key)}, which is no word; quote it")
        word = key if isinstance(key, str) else quoted(key).lower()
        first, other = meant.setdefault(label_word(word), (key, label))
        if other != label:
            raise ValueError(
                f"labels says {quoted(first)}: {quoted(other)} and {quoted(key)}: {quoted(label)}, "
                "which is one word in a table; keep one of them"
            )
        words[word] = label
    return words


LabelWords = Annotated[dict[str, Label], BeforeValidator(_as_words)]
"""Words of a table or of folders -> the label they mean."""


class Section(BaseModel):
    """A frozen group of parameters that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class GeneratorSettings(Section):
    """Parameters of one generator, in a section named after it."""

    samples: ClassVar[bool] = True
    """Whether images are sampled; False where they are taken from others."""

    def check_chosen(self) -> None:
        """Raise `ValueError` when a run that chooses this generator cannot use these values."""


class Optimisation(GeneratorSettings):
    """How long and how fast a generator is trained: AdamW, warm-up, cosine decay."""

    steps: Annotated[int, Field(ge=0)] = 0
    """Optimiser steps; 0 means `epochs` decides."""
    epochs: Count = 1
    learning_rate: Positive = 5e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    maximum_gradient_norm: Positive = 1.0
    ema_decay: OpenFraction | None = None
    """Decay of the exponential moving average of the trained weights, which is then what is saved;
    null saves the last step's weights."""
