"""The trained model as one file: U-ViT, statistics of the latents, and what it was trained for.

Reads and writes `vap.safetensors`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from dermaflux.generators.data.diffusion import DiffusionPath
from dermaflux.generators.data.standardisation import Standardised
from dermaflux.generators.data.weights_file import WeightsFile
from dermaflux.generators.vap.model.options import TextKind
from dermaflux.generators.vap.model.uvit import Shape, UViT

FILE = WeightsFile("vap.safetensors", "vap", "uvit.")


@dataclass(frozen=True)
class Description:
    """What the weights were trained for."""

    shape: Shape
    path: DiffusionPath
    condition: str
    """`malignancy` or `diagnosis`."""
    classes: tuple[str, ...]
    """In the order of their embeddings and prototypes."""
    scale: int
    """Side of the images in pixels."""
    latents: str
    latents_revision: str | None
    autoencoder: str
    """Identity of the autoencoder."""
    text: TextKind
    text_encoder: str
    text_encoder_revision: str | None
    tower: str | None
    """Identity of the text tower; None for a model without text."""


@dataclass
class LatentModel(Standardised):
    """A U-ViT that works on standardised latents."""

    uvit: UViT
    description: Description
    mean: Tensor
    deviation: Tensor


def save(model: LatentModel, folder: Path) -> None:
    """Write the file; equal weights give equal bytes."""
    FILE.save(folder, model.uvit, model.mean, model.deviation, asdict(model.description))


def describe(folder: Path) -> Description:
    """What the weights are for, from the file's header; raises `InputError` if it is damaged."""
    try:
        values = FILE.description(folder)
        values |= {"shape": Shape(**values["shape"]), "classes": tuple(values["classes"])}
        return Description(**values)
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise FILE.unreadable(folder, error) from None


def load(folder: Path, device: torch.device) -> LatentModel:
    """The model in float32, frozen; raises `InputError` if the file is damaged."""
    description = describe(folder)
    with torch.device("meta"):
        uvit = UViT(description.shape)
    mean, deviation = FILE.load(folder, uvit, device)
    return LatentModel(uvit, description, mean, deviation)
