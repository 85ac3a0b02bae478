"""One training step of a FLUX transformer as a rectified flow, for the backbone and for the LoRA.

Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dermaflux.generators import rectified_flow
from dermaflux.generators.text_policy import Text

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

DENSITIES: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "uniform": rectified_flow.uniform,
    "logit-normal": rectified_flow.logit_normal,
}


def pack(latents: Tensor) -> Tensor:
    """(B, 16, H/8, W/8) -> (B, tokens, 64): 2 x 2 patches become tokens, as in FluxPipeline."""
    from diffusers import FluxPipeline

    batch, channels, height, width = latents.shape
    packed: Tensor = FluxPipeline._pack_latents(latents, batch, channels, height, width)
    return packed


def flow_loss(
    model: FluxTransformer2DModel,
    latents: Tensor,
    text: Text,
    guidance: Tensor,
    density: str,
    draw: torch.Generator,
) -> Tensor:
    """Mean squared error of the predicted velocity, a scalar.

    latents: (B, 16, h, w) shifted and scaled; guidance: (B,) fed to the embedding; noise and times
    are drawn on the CPU from `draw`, so they are the same on every device.
    """
    from diffusers import FluxPipeline

    batch, _, height, width = latents.shape
    device = latents.device
    noise = torch.randn(latents.shape, generator=draw).to(device)
    sigma = DENSITIES[density](batch, draw)
    sigma = rectified_flow.shifted(sigma, rectified_flow.shift(height * width // 4)).to(device)
    point = rectified_flow.interpolate(latents.float(), noise, sigma)
    dtype = text.tokens.dtype
    image_ids = FluxPipeline._prepare_latent_image_ids(
        batch, height // 2, width // 2, device, dtype
    )
    predicted = model(
        hidden_states=pack(point).to(dtype),
        timestep=sigma.to(dtype),
        guidance=guidance.to(device),
        pooled_projections=text.pooled,
        encoder_hidden_states=text.tokens,
        txt_ids=text.ids,
        img_ids=image_ids,
        return_dict=False,
    )[0]
    wanted = pack(rectified_flow.target(latents.float(), noise))
    return (predicted.float() - wanted).square().mean()
