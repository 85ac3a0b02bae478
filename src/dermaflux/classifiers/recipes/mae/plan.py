"""What pre-training takes, before any weight exists: parameters, arithmetic, memory. Pure.

Shapes alone are computed, on torch's meta device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from dermaflux.classifiers.recipes.mae import autoencoder
from dermaflux.classifiers.recipes.mae.encoder import Encoder
from dermaflux.params import Pretrain

_STATE = 16
"""Bytes per weight in fp32: the weight, its gradient, and AdamW's two means."""
_STORED = 34
"""Bytes that a layer stores per token and channel for its backward pass in 16 bits, attention
excepted, which is computed again (Korthikanti et al. 2022, arXiv 2205.05198, section 4)."""
_BACKWARD = 2
"""FLOP of a backward pass per FLOP of the forward pass."""


@dataclass(frozen=True)
class Plan:
    """Figures of one model; counted are matrix products, a multiplication and an addition each."""

    encoder_parameters: int
    decoder_parameters: int
    flop_per_image: float
    """Forward pass of the whole encoder on all patches, as a classifier runs it."""
    training_flop_per_image: float
    """Forward and backward pass of the autoencoder, whose encoder sees the visible patches."""
    state_bytes: int
    """Weights, gradients and optimiser."""
    activation_bytes: int
    """Of a batch in one process; an estimate."""

    def table(self, name: str, batch: int) -> str:
        """The figures with their units, one a line."""
        lines = {
            "encoder": f"{self.encoder_parameters / 1e6:,.1f} M parameters, "
            f"{self.flop_per_image / 1e9:,.3g} GFLOP an image forward",
            "decoder": f"{self.decoder_parameters / 1e6:,.1f} M parameters, left out of the output",
            "training": f"{self.training_flop_per_image / 1e9:,.3g} GFLOP an image, "
            f"{batch * self.training_flop_per_image / 1e12:,.3g} TFLOP a step of {batch:,}",
            "memory": f"{self.state_bytes / 2**30:,.2f} GiB weights, gradients and optimiser, "
            f"about {self.activation_bytes / 2**30:,.2f} GiB activations of {batch:,} images",
        }
        return "\n".join(f"pretrain: {name} {key}: {text}" for key, text in lines.items())


def plan(encoder: Encoder, settings: Pretrain, batch: int) -> Plan:
    """The plan for `batch` images in one process."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = autoencoder.build(encoder, settings)
        image = torch.zeros(1, 3, encoder.side, encoder.side)
        noise = torch.zeros(1, encoder.patches)
        training = _flop(lambda: model(pixel_values=image, noise=noise))
        model.config.mask_ratio = 0.0
        forward = _flop(lambda: model.vit(pixel_values=image, noise=noise))
    visible = encoder.patches - autoencoder.hidden_patches(encoder, settings) + 1
    channels = visible * encoder.width * encoder.depth
    channels += (encoder.patches + 1) * settings.decoder_width * settings.decoder_depth
    learned = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return Plan(
        sum(weight.numel() for weight in model.vit.parameters()),
        sum(weight.numel() for weight in model.decoder.parameters()),
        forward,
        (1 + _BACKWARD) * training,
        _STATE * learned,
        batch * channels * _STORED * (1 if settings.precision == "bf16" else 2),
    )


def _flop(forward: Any) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward()
    return float(counter.get_total_flops())
