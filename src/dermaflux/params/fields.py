"""The types that sections of the parameters are made of.

Every number has a smallest and a largest value, every text, list and mapping a largest length: far
beyond what anybody needs, and near enough that a slip of the keyboard gets a sentence.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dermaflux.errors import quoted

if TYPE_CHECKING:
    from dermaflux.params.runtime import Runtime

_SHELL_WORD = re.compile(r"^~|\$\w|\$\{|%[A-Za-z_]\w*%")
_LONGEST_TEXT = 500
_LONGEST_PATH = 1000
_LONGEST_PART = 255  # bytes of a file name, on every common file system
_LARGEST_OPTION = 1_000_000
_MOST_OPTIONS = 500
_DEEPEST_OPTION = 4
_INVISIBLE = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode's categories of control characters, halves of surrogate pairs and line breaks."""

Number = TypeVar("Number", int, float)


def _visible(text: str) -> str:
    for character in text:
        if unicodedata.category(character) in _INVISIBLE:
            raise ValueError(f"{quoted(text)} holds the character {character!r}; leave that out")
    return text


def _path(text: str) -> str:
    for part in text.replace("\\", "/").split("/"):
        if len(part.encode()) > _LONGEST_PART:
            raise ValueError(
                f"{quoted(part)} is a file name of {len(part.encode())} bytes, and file systems "
                f"hold at most {_LONGEST_PART}; correct the path"
            )
    return text


def _without_shell_words(value: str) -> str:
    """Refuse what a shell would expand: DVC and git read the value as it stands."""
    if _SHELL_WORD.search(value):
        expanded = os.path.expandvars(os.path.expanduser(value))
        expanded = "its absolute path" if _SHELL_WORD.search(expanded) else quoted(expanded)
        raise ValueError(
            f"{quoted(value)} holds ~ or a variable, which only a shell expands; write {expanded}"
        )
    return value


def _ascending(values: tuple[Number, Number]) -> tuple[Number, Number]:
    if values[0] > values[1]:
        raise ValueError(
            f"the range starts at {values[0]} and ends at {values[1]}; write the smaller one first"
        )
    return values


def _each_once(values: list[Any]) -> list[Any]:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"{quoted(values)} names one entry twice; name each once")
    return values


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of plain, finite, shallow values, so that nothing else meets them."""
    waiting: list[tuple[Any, int]] = [(options, 0)]
    seen = 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if seen > _MOST_OPTIONS or depth > _DEEPEST_OPTION:
            raise ValueError(
                f"the options hold more than {_MOST_OPTIONS} values or lists in lists more than "
                f"{_DEEPEST_OPTION} deep; leave some out"
            )
        if isinstance(value, Mapping):
            for name in value:
                if not isinstance(name, str) or not name.isidentifier() or len(name) > 100:
                    raise ValueError(f"{quoted(name)} cannot name an option; correct the name")
            waiting += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list | tuple):
            waiting += [(inner, depth + 1) for inner in value]
        elif isinstance(value, str):
            if len(value) > _LONGEST_TEXT:
                raise ValueError(
                    f"the option {quoted(value)} has {len(value)} characters of at most "
                    f"{_LONGEST_TEXT}; shorten it"
                )
            _visible(value)
        elif isinstance(value, int | float):
            if not math.isfinite(value) or abs(value) > _LARGEST_OPTION:
                raise ValueError(
                    f"the option {quoted(value)} is not a number from -{_LARGEST_OPTION} to "
                    f"{_LARGEST_OPTION}; correct that value"
                )
        elif value is not None:
            raise ValueError(
                f"the option {quoted(value)} is not text, a number, true or false, a list or a "
                "mapping; write one of these"
            )
    return options


Text = Annotated[str, Field(min_length=1, max_length=_LONGEST_TEXT), AfterValidator(_visible)]
Header = Annotated[str, Field(min_length=1, max_length=_LONGEST_TEXT)]
"""A column's name or a cell of a table that others wrote, where anything occurs."""
PathText = Annotated[
    str,
    Field(min_length=1, max_length=_LONGEST_PATH),
    AfterValidator(_visible),
    AfterValidator(_path),
    AfterValidator(_without_shell_words),
]
"""A path, or a name where a path may stand; without ~ and variables such as $HOME."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
"""What becomes part of a file name."""
Options = Annotated[dict[str, Any], Field(max_length=_MOST_OPTIONS), AfterValidator(_plain)]
EachOnce = AfterValidator(_each_once)
Draw = Literal["pooled", "matched"]
"""Whether images are drawn from each class alone, or in pairs that agree in some columns."""
MatchBy = Annotated[
    list[Literal["source", "scale", "modality", "skin_tone"]],
    Field(min_length=1, max_length=4),
    EachOnce,
]
"""Columns of the table in which the two images of a pair agree; read where a draw is matched."""

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
OpenFraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
CountOrZero = Annotated[int, Field(ge=0, le=10_000_000)]
"""A count of which 0 has a meaning of its own."""
Batch = Annotated[int, Field(ge=1, le=65_536)]
Side = Annotated[int, Field(ge=1, le=100_000)]
"""Pixels."""
LearningRate = Annotated[float, Field(ge=1e-9, le=100.0)]
Guidance = Annotated[float, Field(ge=0.0, le=1000.0)]
Scale = Literal[128, 256, 512]
Class = Literal["benign", "malignant"]
Label = Literal["benign", "malignant", "indeterminate"]
SkinTone = Literal["I", "II", "III", "IV", "V", "VI", "I-II", "III-IV", "V-VI"]
Licence = Literal["CC0", "CC-BY", "CC-BY-NC", "CC-BY-NC-ND", "research-only", "own"]
Modality = Literal["dermoscopic", "clinical", "tile"]
# YAML has no tuples, and strict validation would refuse a list for one.
FractionRange = Annotated[
    tuple[Fraction, Fraction], Field(strict=False), AfterValidator(_ascending)
]
CountRange = Annotated[tuple[Count, Count], Field(strict=False), AfterValidator(_ascending)]


class Section(BaseModel):
    """A frozen group of parameters that refuses keys it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, str_max_length=4096
    )


class LessMemory(NamedTuple):
    """What to change when memory runs out, as an error says it; empty where nothing can be."""

    continues: str
    """After this change the stage continues from its last checkpoint."""
    anew: str
    """After this one it starts from the beginning."""


class GeneratorSettings(Section):
    """Parameters of one generator, in a section named after it."""

    samples: ClassVar[bool] = True
    """Whether images are sampled; False where they are taken from others."""
    unconditional: ClassVar[bool] = False
    """Whether images can be sampled without asking for a class: `synthesize.conditions: none`."""
    reads_captions: ClassVar[bool] = False
    """Whether images are sampled from prompts, as the sampler's `needs` say too."""

    def less_memory(self, runtime: Runtime) -> LessMemory:
        """What to change when memory runs out, beside `runtime` as it is."""
        return LessMemory("", "")

    def check_chosen(self) -> None:
        """Raise `ValueError` when a run that chooses this generator cannot use these values."""

    def check_trained(
        self, trained: GeneratorSettings, scale: int, conditions: str, prompt_source: str
    ) -> None:
        """Raise `ValueError` when what `finetune` trains cannot be sampled with these values.

        `trained` is this generator's section of `finetune`, `scale` the images' side in pixels,
        `conditions` and `prompt_source` what those parameters of `synthesize` say.
        """

    def input_paths(self) -> dict[str, str | None]:
        """Parameter -> path of what is read from outside, or a name where a path may stand."""
        return {}

    def check_inputs(self) -> None:
        """Raise `ValueError` when what is read from outside is not there."""


class Optimisation(GeneratorSettings):
    """How long and how fast a generator is trained: AdamW, warm-up, cosine decay."""

    steps: CountOrZero = 0
    """Optimiser steps; 0 means `epochs` decides."""
    epochs: Count = 1
    learning_rate: LearningRate = 5e-4
    warmup_steps: CountOrZero = 20
    maximum_gradient_norm: Annotated[float, Field(gt=0.0, le=1e6)] = 1.0
    ema_decay: OpenFraction | None = None
    """Decay of the exponential moving average of the trained weights, which is then what is saved;
    null saves the last step's weights."""
