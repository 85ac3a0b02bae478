"""Samples images with the pipeline's own Euler sampler, each from its own seed.

Reads and writes nothing but the grid it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dermaflux.generators.flux_lora.model import prompt_padding
from dermaflux.generators.flux_lora.model.prompt_padding import ResidentText, TextSource

if TYPE_CHECKING:
    from diffusers import FluxPipeline

Pictures = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class Sampler:
    """How images are sampled; together with prompt, seed and weights it decides the pixels."""

    steps: int
    guidance: float
    scale: int
    """Side of the square image in pixels."""
    prompt_padding: prompt_padding.Policy
    """T5 length of a prompt, as the adapter was trained."""


def sample(
    pipe: FluxPipeline,
    sampler: Sampler,
    prompts: Sequence[str],
    seeds: Sequence[int],
    text: TextSource | None = None,
) -> Pictures:
    """One image per prompt, in their order, uint8 (B, scale, scale, 3).

    Prompts of one text length go through the model together; `text` encodes them, the pipeline's
    own encoders when None. Image i's noise comes from a CPU generator of its own with seed i, so an
    image does not depend on its neighbours in the batch, up to the rounding of batched kernels.
    """
    encode = text or ResidentText(pipe)
    lengths = prompt_padding.text_lengths(pipe, prompts, sampler.prompt_padding)
    done: Pictures = np.empty((len(prompts), sampler.scale, sampler.scale, 3), dtype=np.uint8)
    for length in sorted(set(lengths)):
        members = [place for place, own in enumerate(lengths) if own == length]
        with torch.inference_mode():
            encoded = encode([prompts[place] for place in members], length)
            images = pipe(
                prompt_embeds=encoded.tokens,
                pooled_prompt_embeds=encoded.pooled,
                height=sampler.scale,
                width=sampler.scale,
                num_inference_steps=sampler.steps,
                guidance_scale=sampler.guidance,
                generator=[torch.Generator().manual_seed(seeds[place]) for place in members],
                max_sequence_length=length,
                output_type="np",
            ).images
        done[members] = np.rint(images * 255)
    return done


def save_grid(pictures: Pictures, columns: int, path: Path) -> None:
    """Write images, uint8 (N, H, W, 3), as one PNG with two pixels of white between them."""
    from PIL import Image

    count, height, width, _ = pictures.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + 2) - 2, columns * (width + 2) - 2, 3), 255, dtype=np.uint8)
    for index, picture in enumerate(pictures):
        top, left = (index // columns) * (height + 2), (index % columns) * (width + 2)
        sheet[top : top + height, left : left + width] = picture
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path)
