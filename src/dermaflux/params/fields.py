"""The types that sections of the parameters are made of."""

from __future__ import annotations

import os
import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dermaflux.errors import quoted

_SHELL_WORD = re.compile(r"^~|\$\w|\$\{|%[A-Za-z_]\w*%")

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


def _without_shell_words(value: str) -> str:
    """Refuse what a shell would expand: DVC and git read the value as it stands."""
    if _SHELL_WORD.search(value):
        expanded = os.path.expandvars(os.path.expanduser(value))
        expanded = "its absolute path" if _SHELL_WORD.search(expanded) else quoted(expanded)
        raise ValueError(
            f"{quoted(value)} holds ~ or a variable, which only a shell expands; write {expanded}"
        )
    return value


PathText = Annotated[str, AfterValidator(_without_shell_words)]
"""A path, or a name where a path may stand; without ~ and variables such as $HOME."""


class Section(BaseModel):
    """A frozen group of parameters that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class GeneratorSettings(Section):
    """Parameters of one generator, in a section named after it."""

    samples: ClassVar[bool] = True
    """Whether images are sampled; False where they are taken from others."""
    less_memory: ClassVar[str] = ""
    """What to change when memory runs out, as an error says it; empty where nothing can be."""

    def check_chosen(self) -> None:
        """Raise `ValueError` when a run that chooses this generator cannot use these values."""

    def input_paths(self) -> dict[str, str | None]:
        """Parameter -> path of what is read from outside, or a name where a path may stand."""
        return {}


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
