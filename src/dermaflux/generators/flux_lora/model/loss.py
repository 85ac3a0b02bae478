"""One forward pass of a FLUX transformer as a rectified flow, for backbone, LoRA and validation.

Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dermaflux.generators.flux_lora.model import rectified_flow
from dermaflux.generators.flux_lora.model.prompt_padding import Text

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


def noise_and_sigma(
    latents: Tensor, density: str, generators: Sequence[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """Noise like `latents` (B, 16, h, w) and shifted sigmas (B,), both on the CPU.

    Image i draws from a CPU generator of its own, so what it gets depends neither on its neighbours
    nor on the device nor on the number of processes. The shift is that of the image's tokens.
    """
    shape, (height, width) = latents.shape[1:], latents.shape[-2:]
    noise = torch.stack([torch.randn(shape, generator=g) for g in generators])
    sigma = torch.cat([DENSITIES[density](1, g) for g in generators])
    mu = rectified_flow.shift(height * width // 4)
    return noise, rectified_flow.shifted(sigma, mu)


def velocity(
    model: FluxTransformer2DModel,
    point: Tensor,
    sigma: Tensor,
    text: Text,
    guidance: float | Tensor,
) -> Tensor:
    """The model's velocity at `point` (B, 16, h, w) and sigma (B,), packed: (B, tokens, 64).

    guidance: one value or (B,), fed to the embedding of models that have one and ignored by others.
    """
    from diffusers import FluxPipeline

    batch, _, height, width = point.shape
    device, dtype = point.device, text.tokens.dtype
    image_ids = FluxPipeline._prepare_latent_image_ids(
        batch, height // 2, width // 2, device, dtype
    )
    guidance_input = None
    if model.config.guidance_embeds:
        guidance_input = torch.as_tensor(guidance, dtype=torch.float32).to(device).expand(batch)
    predicted: Tensor = model(
        hidden_states=pack(point).to(dtype),
        timestep=sigma.to(dtype),
        guidance=guidance_input,
        pooled_projections=text.pooled,
        encoder_hidden_states=text.tokens,
        txt_ids=text.ids,
        img_ids=image_ids,
        return_dict=False,
    )[0]
    return predicted


def flow_matching_loss(
    model: FluxTransformer2DModel,
    latents: Tensor,
    noise: Tensor,
    sigma: Tensor,
    text: Text,
    guidance: float | Tensor,
) -> Tensor:
    """Mean squared error of the predicted velocity of each image, (B,) float32.

    latents: (B, 16, h, w) shifted and scaled, noise like it; sigma: (B,) in (0, 1); guidance as for
    `velocity`.
    """
    noise, sigma = noise.to(latents.device), sigma.to(latents.device)
    latents = latents.float()
    point = rectified_flow.interpolate(latents, noise, sigma)
    predicted = velocity(model, point, sigma, text, guidance)
    target = pack(rectified_flow.target(latents, noise))
    return (predicted.float() - target).square().mean((1, 2))


def flow_loss(
    model: FluxTransformer2DModel,
    latents: Tensor,
    text: Text,
    guidance: Tensor,
    density: str,
    draw: torch.Generator,
) -> Tensor:
    """`flow_matching_loss` averaged over a batch that draws from one generator, a scalar."""
    height, width = latents.shape[-2:]
    noise = torch.randn(latents.shape, generator=draw)
    sigma = DENSITIES[density](len(latents), draw)
    sigma = rectified_flow.shifted(sigma, rectified_flow.shift(height * width // 4))
    return flow_matching_loss(model, latents, noise, sigma, text, guidance).mean()
