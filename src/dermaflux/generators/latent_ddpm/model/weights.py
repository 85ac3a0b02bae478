"""The trained model as one file: U-Net, statistics of the latents, and what it was trained for.

Reads and writes `latent_ddpm.safetensors`. Everything that decides an image besides the autoencoder
is inside, so the file's hash is the generator's identity.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from dermaflux.core.files import damaged
from dermaflux.errors import quoted
from dermaflux.generators.latent_ddpm.model.diffusion import DiffusionPath
from dermaflux.generators.latent_ddpm.model.options import Prediction
from dermaflux.generators.latent_ddpm.model.unet import Shape, build

FILE = "latent_ddpm.safetensors"
_STAGE = "the stage finetune"
_METADATA = "latent_ddpm"
_MEAN, _DEVIATION = "latents.mean", "latents.deviation"


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
class LatentModel:
    """A U-Net that works on standardised latents."""

    unet: Any
    description: Description
    mean: Tensor
    """Of each channel of the training latents, (C, 1, 1)."""
    deviation: Tensor

    def standardise(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) to mean 0 and deviation 1 per channel over the training images."""
        return (latents - self.mean.to(latents)) / self.deviation.to(latents)

    def restore(self, latents: Tensor) -> Tensor:
        """The inverse of `standardise`."""
        return latents * self.deviation.to(latents) + self.mean.to(latents)


def channel_statistics(draws: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and deviation (C, 1, 1) of latents, each (B, C, h, w).

    Raises `ValueError` for a channel that never changes.
    """
    count, total, squares = 0, torch.zeros(1), torch.zeros(1)
    for latents in draws:
        values = latents.double()
        count += values.shape[0] * values.shape[2] * values.shape[3]
        total = total + values.sum((0, 2, 3))
        squares = squares + values.square().sum((0, 2, 3))
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
    if not bool((deviation > 1e-6).all()):
        raise ValueError("a channel of the latents has the same value everywhere")
    return mean.float().view(-1, 1, 1), deviation.float().view(-1, 1, 1)


def save(model: LatentModel, folder: Path) -> None:
    """Write the file; equal weights give equal bytes."""
    from safetensors.torch import save_file

    tensors = {_MEAN: model.mean, _DEVIATION: model.deviation}
    tensors |= {f"unet.{name}": value for name, value in model.unet.state_dict().items()}
    stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    # One key: safetensors writes several in an order of its own.
    text = json.dumps(asdict(model.description), sort_keys=True)
    save_file(stored, folder / FILE, metadata={_METADATA: text})


def describe(folder: Path) -> Description:
    """What the weights are for, from the file's header; raises `InputError` if it is damaged."""
    from safetensors import SafetensorError, safe_open

    file = folder / FILE
    try:
        with safe_open(file, framework="pt") as content:
            values = json.loads((content.metadata() or {})[_METADATA])
        shape, prediction = values["shape"], values["path"]["prediction"]
        if prediction not in get_args(Prediction):
            raise ValueError(f"it predicts {quoted(prediction)}")
        shape["block_out_channels"] = tuple(shape["block_out_channels"])
        values |= {"shape": Shape(**shape), "path": DiffusionPath(**values["path"])}
        return Description(**values | {"classes": tuple(values["classes"])})
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise damaged(file, error, _STAGE) from None


def load(folder: Path, device: torch.device) -> LatentModel:
    """The model in float32, frozen; raises `InputError` if the file is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    description = describe(folder)
    with torch.device("meta"):
        unet = build(description.shape)
    try:
        stored = load_file(folder / FILE)
        mean, deviation = stored.pop(_MEAN), stored.pop(_DEVIATION)
        weights = {name.removeprefix("unet."): value for name, value in stored.items()}
        unet.load_state_dict(weights, assign=True)
    except (SafetensorError, KeyError, RuntimeError, OSError) as error:
        raise damaged(folder / FILE, error, _STAGE) from None
    unet.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)
    return LatentModel(unet, description, mean.to(device), deviation.to(device))
