"""The only place that decides how many T5 tokens a prompt has, in training and sampling alike.

FLUX reads a prompt twice. T5 gives one state per token; these states enter every attention, so
their number decides the cost of a step. CLIP gives one pooled vector, which is added to the
embedding of the time and modulates all blocks alike: it sets the overall look, the words come from
T5. CLIP ends at 77 tokens, so the pooled vector of a longer caption knows only its beginning. That
is how FLUX works, and it stays so; `clip_cut` counts the captions concerned and finds those whose
class word CLIP never sees. Reads and writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from dermaflux.captions.text import lengths
from dermaflux.generators.flux_lora.model.options import PromptPadding

if TYPE_CHECKING:
    from diffusers import FluxPipeline

LIMIT = 512
"""T5 tokens FLUX was trained with; longer prompts are cut there."""
_CLASS_WORD = re.compile(r"\b(?:benign|malignant)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Text:
    """Encoded prompts of one length."""

    tokens: Tensor
    """(B, T, D) T5 states of the padded, unmasked sequence, as FLUX uses them."""
    pooled: Tensor
    """(B, P) CLIP state of the end token."""
    ids: Tensor
    """(T, 3) zeros: FLUX gives text no position."""


class TextSource(Protocol):
    """Encodes prompts of one length: with resident encoders, or from a cache."""

    def __call__(self, prompts: Sequence[str], length: int) -> Text:
        """Text of B prompts, each padded or cut to `length` T5 tokens."""
        ...


def text_length(tokens: int, padding: PromptPadding) -> int:
    """T5 length in tokens of a prompt that has `tokens`, its end token included.

    `trim` rounds up to 16 tokens: padding takes part in attention unmasked, so the length belongs
    to the prompt alone and never to the batch it happens to be in. `pad512` is what the authors'
    released weights were trained with.
    """
    if padding == "pad512":
        return LIMIT
    return min(LIMIT, -(-tokens // lengths.BIN) * lengths.BIN)


def text_lengths(
    tokenizer_2: Callable[..., Any] | FluxPipeline, prompts: Sequence[str], padding: PromptPadding
) -> list[int]:
    """T5 length of each prompt; `tokenizer_2` may be the pipeline that holds it."""
    tokenizer: Any = getattr(tokenizer_2, "tokenizer_2", tokenizer_2)
    return [text_length(count, padding) for count in lengths.in_tokens(tokenizer, prompts)]


def encode(pipe: FluxPipeline, prompts: Sequence[str], length: int) -> Text:
    """The pipeline's own encoding at `length` T5 tokens, without gradient."""
    encoder: Any = pipe
    with torch.no_grad():
        return Text(*encoder.encode_prompt(prompt=list(prompts), max_sequence_length=length))


class ResidentText:
    """Encodes with the pipeline's own encoders, which stay on the device."""

    def __init__(self, pipe: FluxPipeline) -> None:
        self._pipe = pipe

    def __call__(self, prompts: Sequence[str], length: int) -> Text:
        """Text of B prompts, each padded or cut to `length` T5 tokens."""
        return encode(self._pipe, prompts, length)


@dataclass(frozen=True)
class ClipCut:
    """What CLIP does not see of a list of prompts."""

    limit: int
    """CLIP tokens, start and end included."""
    prompts: int
    """How many were looked at."""
    cut: tuple[int, ...]
    """Indices of the prompts that are longer."""
    class_lost: tuple[int, ...]
    """Indices of those whose first class word lies beyond the cut."""

    def warning(self, names: Sequence[str]) -> str | None:
        """One sentence that names prompts without a class word for CLIP; None when all have it."""
        if not self.class_lost:
            return None
        count = len(self.class_lost)
        some = ", ".join(names[index] for index in self.class_lost[:3])
        return (
            f"{count:,} of {self.prompts:,} captions such as {some} name their class beyond the "
            f"{self.limit} tokens CLIP reads, so only T5 tells benign from malignant there; let "
            "captions begin with the class"
        )


def clip_cut(tokenizer: Any, prompts: Sequence[str]) -> ClipCut:
    """Prompts that CLIP cuts, and those of them whose class word it does not see.

    A prompt without any class word is not counted as having lost it.
    """
    limit = int(tokenizer.model_max_length)
    counts = lengths.in_tokens(tokenizer, prompts)
    cut = [index for index, count in enumerate(counts) if count > limit]
    words = {index: _CLASS_WORD.search(prompts[index]) for index in cut}
    # CLIP splits text at words, so text up to a word's end is a prefix of the tokens as well.
    named = [(index, prompts[index][: word.end()]) for index, word in words.items() if word]
    needed = lengths.in_tokens(tokenizer, [text for _, text in named])
    lost = [index for (index, _), count in zip(named, needed, strict=True) if count > limit]
    return ClipCut(limit, len(prompts), tuple(cut), tuple(lost))
