"""Values that several parts of this generator read, and what must hold between them. Pure."""

from __future__ import annotations

from typing import Literal

GENERATOR = "vap"
"""Its name, which the errors of shared code say."""
TextKind = Literal["captions", "label", "none"]
Variant = Literal["paper", "released"]
ReconstructionTarget = Literal["detached", "joint"]
OPEN_CLIP = "hf-hub:"
"""Prefix of hub repositories that open_clip opens, as in `zero_shot.models`."""


def check_heads(width: int, heads: int) -> None:
    """Raise `ValueError` for a width that the heads cannot share."""
    if width % heads:
        raise ValueError(
            f"finetune.vap.width {width} is not a multiple of heads {heads}; choose heads that "
            "divide it"
        )


def check_mechanism(variant: Variant, prototypes: int, target: ReconstructionTarget) -> None:
    """Raise `ValueError` where the released variant lacks what it is made of."""
    if variant == "released" and not prototypes:
        raise ValueError(
            "finetune.vap.variant 'released' shows the class through prototypes alone and "
            "prototypes is 0; raise it, such as to 512, or set variant to paper"
        )
    if variant == "released" and target != "joint":
        raise ValueError(
            f"finetune.vap.reconstruction_target is {target!r} and the variant 'released' learns "
            "its target; set reconstruction_target to joint, or variant to paper"
        )


def check_prompts(text: TextKind, prompt_source: str) -> None:
    """Raise `ValueError` where a model that never read descriptions would be given some."""
    if text != "captions" and prompt_source != "label":
        raise ValueError(
            f"synthesize.prompt_source is {prompt_source!r} and finetune.vap.text {text!r} reads "
            "no descriptions; set prompt_source to label, or text to captions"
        )
