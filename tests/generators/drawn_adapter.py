"""A generator folder whose adapter is drawn, not trained: strong enough to change every image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dermaflux import table
from dermaflux.generators import lora, pipeline
from dermaflux.generators.lora import SETTINGS

CPU = torch.device("cpu")


def awaken(transformer: torch.nn.Module) -> None:
    """Move zero-started gates and output layer well away from zero.

    After the few steps the backbone is trained for, they still hide what the blocks compute.
    """
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))


def draw_generator(
    backbone: Path,
    folder: Path,
    targets: lora.Targets = "attention",
    text_policy: str = "trim",
    rank: int = 2,
    alpha: float = 4.0,
) -> Path:
    """models/generator/ as `finetune` writes it, with random weights."""
    pipe = pipeline.load(backbone, "fp32", CPU)
    weights = lora.add(pipe.transformer, targets, rank, alpha, seed=5)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in weights.values():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=draw))
    facts: dict[str, Any] = {"text_policy": text_policy, "base_dtype": "fp32"}
    lora.save(pipe.transformer, folder, facts)
    identity = pipeline.reference(backbone).identity
    table.write_json(folder / SETTINGS, {**facts, "backbone": identity})
    return folder


def awakened_backbone(backbone: Path, folder: Path) -> Path:
    """A copy of the backbone whose blocks matter to the image."""
    from dermaflux.generators import tiny_pipeline

    pipe = pipeline.load(backbone, "fp32", CPU)
    awaken(pipe.transformer)
    tiny_pipeline.save(pipe, folder)
    return folder
