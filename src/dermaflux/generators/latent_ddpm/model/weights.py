"""The trained model as one file: U-Net, statistics of the latents, and what it was trained for.

Reads and writes `latent_ddpm.safetensors`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from dermaflux.generators.data.diffusion import DiffusionPath
from dermaflux.generators.data.standardisation import Standardised
from dermaflux.generators.data.weights_file import WeightsFile
from dermaflux.generators.latent_ddpm.model.unet import Shape, build

FILE = WeightsFile("latent_ddpm.safetensors", "latent_ddpm", "unet.")


@dataclass(frozen=True)
class Description:
    """What the weights were trained for."""

    shape: Shape
    path: DiffusionPath
    condition: str
    """`malignancy` or `diagnosis`."""
    classes: tuple[str, ...]
    """In the order of their embeddings."""
    scale: int
    """Side of the images in pixels."""
    latents: str
    latents_revision: str | None
    autoencoder: str
    """Identity of the autoencoder."""


@dataclass
class LatentModel(Standardised):
    """A U-Net that works on standardised latents."""

    unet: Any
    description: Description
    mean: Tensor
    deviation: Tensor


def save(model: LatentModel, folder: Path) -> None:
    """Write the file; equal weights give equal bytes."""
    FILE.save(folder, model.unet, model.mean, model.deviation, asdict(model.description))


def describe(folder: Path) -> Description:
    """What the weights are for, from the file's header; raises `InputError` if it is damaged."""
    try:
        values = FILE.description(folder)
        shape = values["shape"]
        shape["block_out_channels"] = tuple(shape["block_out_channels"])
        values |= {"shape": Shape(**shape), "classes": tuple(values["classes"])}
        return Description(**values)
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise FILE.unreadable(folder, error) from None


def load(folder: Path, device: torch.device) -> LatentModel:
    """The model in float32, frozen; raises `InputError` if the file is damaged."""
    description = describe(folder)
    with torch.device("meta"):
        unet = build(description.shape)
    mean, deviation = FILE.load(folder, unet, device)
    unet.to(memory_format=torch.channels_last)
    return LatentModel(unet, description, mean, deviation)
