"""The types that sections of the parameters are made of."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

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
