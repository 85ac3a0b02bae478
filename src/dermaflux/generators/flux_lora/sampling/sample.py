"""Samples images with the pipeline's own Euler sampler, each from its own seed.

Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from dermaflux.core.arrays import Pixels
from dermaflux.generators.flux_lora.model import prompt_padding
from dermaflux.generators.flux_lora.model.options import PromptPadding
from dermaflux.generators.flux_lora.model.prompt_padding import ResidentText, TextSource
from dermaflux.generators.protocol import Condition

if TYPE_CHECKING:
    from diffusers import FluxPipeline


@dataclass(frozen=True)
class SamplingSettings:
    """How images are sampled; together with condition and weights it decides the pixels."""

    steps: int
    guidance: float
    prompt_padding: PromptPadding
    """T5 length of a prompt, as the adapter was trained."""


def sample(
    pipe: FluxPipeline,
    settings: SamplingSettings,
    conditions: Sequence[Condition],
    text: TextSource | None = None,
) -> Pixels:
    """One image per condition, in their order, uint8 (B, scale, scale, 3); all of one scale.

    Prompts of one text length go through the model together; `text` encodes them, the pipeline's
    own encoders when None. Image i's noise comes from a CPU generator of its own with the seed of
    condition i, so an image does not depend on its neighbours in the batch, up to the rounding of
    batched kernels.
    """
    encode = text or ResidentText(pipe)
    prompts = [condition.prompt for condition in conditions]
    (scale,) = {condition.scale for condition in conditions}
    lengths = prompt_padding.text_lengths(pipe, prompts, settings.prompt_padding)
    images: Pixels = np.empty((len(prompts), scale, scale, 3), dtype=np.uint8)
    for length in sorted(set(lengths)):
        members = [index for index, other in enumerate(lengths) if other == length]
        with torch.inference_mode():
            encoded = encode([prompts[index] for index in members], length)
            output = pipe(
                prompt_embeds=encoded.tokens,
                pooled_prompt_embeds=encoded.pooled,
                height=scale,
                width=scale,
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
                generator=[torch.Generator().manual_seed(conditions[i].seed) for i in members],
                max_sequence_length=length,
                output_type="np",
            ).images
        images[members] = np.rint(output * 255)
    return images
