"""The alphas of an adapter by peft's own description of it, from a header or the file beside it.

`alpha_pattern` holds regular expressions that anyone may have written: those that could run for
hours are refused. Reads peft's adapter_config.json.
"""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from dermaflux.errors import quoted
from dermaflux.generators.flux_lora.files.layer_names import Layer
from dermaflux.generators.flux_lora.model import lora
from dermaflux.generators.flux_lora.model.weights_file import Header, UnreadableError

PEFT_CONFIG = "adapter_config.json"
"""File in which peft keeps it, beside the weights."""
PEFT_WEIGHTS = "adapter_model.safetensors"
LARGEST = 65504.0
"""Of half precision: a larger factor, product or alpha overflows in the programs that use one."""
_PREFIX = "transformer."
_PEFT_PREFIX = "base_model.model."
_PATTERNS = 2000  # FLUX.1-dev has 504 Linear layers
_PATTERN_LENGTH = 300
_REPEATS = 3  # in one pattern: the time grows with the name's length to that power


def described(path: Path, header: Header) -> dict[str, Any] | None:
    """peft's description of the adapter, from the header or the file beside it; None without."""
    config = header.json(lora.DIFFUSERS_CONFIG)
    if config is not None:
        if not isinstance(config, dict):
            raise UnreadableError(f"has metadata {lora.DIFFUSERS_CONFIG} that describe no adapter")
        return {name.removeprefix(_PREFIX): value for name, value in config.items()}
    beside = path.with_name(PEFT_CONFIG)
    of_peft = any(name.startswith(_PEFT_PREFIX) for name in header.tensors)
    if not (of_peft or path.name == PEFT_WEIGHTS) or not beside.is_file():
        return None
    try:
        config = json.loads(beside.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError):
        config = None
    if not isinstance(config, dict):
        raise UnreadableError(f"has an {PEFT_CONFIG} beside it that is not valid JSON")
    return config


def alpha_of(config: dict[str, Any] | None, name: str, place: Layer, rank: int) -> float:
    """A layer's alpha by peft's description; without one it is the rank, a scale of 1."""
    if config is None:
        return float(rank)
    plain = place.parts[0] if len(place.parts) == 1 else name.removeprefix(_PEFT_PREFIX)
    patterns = config.get("alpha_pattern") or {}
    try:
        if len(patterns) > _PATTERNS:
            raise ValueError
        matching = (alpha for key, alpha in patterns.items() if _compiled(key).match(plain))
        alpha = next(matching, config.get("lora_alpha", rank))
    except (AttributeError, TypeError, ValueError, RecursionError, re.error):
        raise UnreadableError("has a description of its alphas that cannot be read") from None
    return positive(alpha, name) * (math.sqrt(rank) if config.get("use_rslora") else 1.0)


@lru_cache(maxsize=_PATTERNS)
def _compiled(key: str) -> re.Pattern[str]:
    """The expression of peft's `get_pattern_key`; `ValueError` for one that may take very long."""
    repeats = re.findall(r"[*+?]", key)
    if len(key) > _PATTERN_LENGTH or len(repeats) > _REPEATS or re.search(r"\{|\)[*+?]", key):
        raise ValueError
    return re.compile(rf"(.*\.)?({key})$")


def positive(alpha: Any, name: str) -> float:
    """A layer's alpha, checked to be a number that half precision holds."""
    number = isinstance(alpha, (int, float)) and not isinstance(alpha, bool)
    if not number or not 0 < alpha <= LARGEST:
        raise UnreadableError(
            f"has the alpha {quoted(alpha)} for the layer {quoted(name)}, which is not between 0 "
            f"and {LARGEST:,.0f}",
            "give a LoRA with a positive alpha",
        )
    return float(alpha)
