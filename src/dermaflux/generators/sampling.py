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

from dermaflux.generators.text_policy import Text

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
    text_tokens: int


def sample(
    pipe: FluxPipeline, sampler: Sampler, prompts: Sequence[str], seeds: Sequence[int]
) -> Pictures:
    """One image per prompt, uint8 (B, scale, scale, 3).

    Image i's noise comes from a CPU generator of its own with seed i, so an image does not depend
    on its neighbours in the batch, up to the rounding of batched kernels.
    """
    with torch.inference_mode():
        text = Text(
            *pipe.encode_prompt(prompt=list(prompts), max_sequence_length=sampler.text_tokens)
        )
        images = pipe(
            prompt_embeds=text.tokens,
            pooled_prompt_embeds=text.pooled,
            height=sampler.scale,
            width=sampler.scale,
            num_inference_steps=sampler.steps,
            guidance_scale=sampler.guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            max_sequence_length=sampler.text_tokens,
            output_type="np",
        ).images
    done: Pictures = np.rint(images * 255).astype(np.uint8)
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
