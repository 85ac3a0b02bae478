"""The U-Net: diffusers' UNet2DModel with one embedding per class and one for no class.

Reads and writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

_HEAD = 32
"""Channels of an attention head; diffusers' `attention_head_dim` is a size, not a number."""


@dataclass(frozen=True)
class Shape:
    """Everything that decides the U-Net's parameters."""

    channels: int
    """Of the latents."""
    side: int
    """Of the latents."""
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    attention_levels: int
    classes: int
    """Without the one for no class, which comes last."""


def build(shape: Shape) -> Any:
    """The UNet2DModel with random weights from torch's generator, on torch's default device."""
    from diffusers import UNet2DModel

    levels = len(shape.block_out_channels)
    attention = [level >= levels - shape.attention_levels for level in range(levels)]
    model: Any = UNet2DModel
    return model(
        sample_size=shape.side,
        in_channels=shape.channels,
        out_channels=shape.channels,
        layers_per_block=shape.layers_per_block,
        block_out_channels=shape.block_out_channels,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in attention[::-1]),
        num_class_embeds=shape.classes + 1,
        attention_head_dim=_HEAD,
        norm_num_groups=_groups(shape.block_out_channels),
    )


def _groups(channels: tuple[int, ...]) -> int:
    """Of the group norms: 32 as in Ho et al. 2020, fewer where a group had under four channels.

    Class and time are added to whole channels in front of a norm: with one channel in a group, the
    norm takes all of it away again.
    """
    return 32 if min(channels) >= 128 else 16 if min(channels) >= 64 else 8


def forward_flop(shape: Shape) -> float:
    """FLOP (a multiply-add counts 2) of one image's forward pass, counted on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = build(shape)
        latents = torch.empty(1, shape.channels, shape.side, shape.side)
        model(latents, torch.empty(1), class_labels=torch.empty(1, dtype=torch.long))
    return float(counter.get_total_flops())
