"""A FLUX transformer of two double and four single blocks, and one step of it."""

from __future__ import annotations

from typing import Any

import torch


def transformer(double: int = 2, single: int = 4) -> Any:
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    return FluxTransformer2DModel(
        in_channels=64, num_layers=double, num_single_layers=single, attention_head_dim=32,
        num_attention_heads=4, joint_attention_dim=96, pooled_projection_dim=64,
        guidance_embeds=True, axes_dims_rope=(8, 12, 12),
    )  # fmt: skip


def velocity(
    model: Any, images: int, image_tokens: int, text_tokens: int, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """(images, image_tokens, 64) from inputs that depend on the arguments alone."""
    draw = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw).to(dtype)

    found: torch.Tensor = model(
        hidden_states=normal(images, image_tokens, 64),
        timestep=torch.linspace(0.2, 0.8, images).to(dtype),
        guidance=torch.ones(images),
        pooled_projections=normal(images, 64),
        encoder_hidden_states=normal(images, text_tokens, 96),
        txt_ids=torch.zeros(text_tokens, 3),
        img_ids=torch.zeros(image_tokens, 3),
        return_dict=False,
    )[0]
    return found


def stir(weights: dict[str, torch.nn.Parameter]) -> None:
    """Adapter weights well away from their start, where half of the gradients are zero."""
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in weights.values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))


def gradients(model: Any, weights: dict[str, torch.nn.Parameter], *shape: int) -> torch.Tensor:
    """All gradients of a mean square, (parameters,)."""
    for parameter in weights.values():
        parameter.grad = None
    velocity(model, *shape).float().square().mean().backward()
    return torch.cat([p.grad.flatten() for p in weights.values() if p.grad is not None])
