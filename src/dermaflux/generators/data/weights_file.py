"""A trained model as one file: weights, statistics of the latents, and what it was trained for.

Everything that decides an image besides the frozen models is inside, so the file's hash is the
generator's identity. Reads and writes that file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from dermaflux.core.files import damaged
from dermaflux.errors import InputError, quoted
from dermaflux.generators.data.diffusion import DiffusionPath
from dermaflux.generators.data.options import Prediction

_STAGE = "the stage finetune"
_MEAN, _DEVIATION = "latents.mean", "latents.deviation"


@dataclass(frozen=True)
class WeightsFile:
    """Where a generator keeps its weights, and under which names."""

    name: str
    """Of the file in models/generator/."""
    metadata: str
    """Key of the description in the file's header."""
    prefix: str
    """Of the names of the network's weights."""

    def save(
        self,
        folder: Path,
        network: nn.Module,
        mean: Tensor,
        deviation: Tensor,
        description: Mapping[str, Any],
    ) -> None:
        """Write the file; equal weights give equal bytes."""
        from safetensors.torch import save_file

        tensors = {_MEAN: mean, _DEVIATION: deviation}
        tensors |= {f"{self.prefix}{key}": value for key, value in network.state_dict().items()}
        stored = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        # One key: safetensors writes several in an order of its own.
        text = json.dumps(description, sort_keys=True)
        save_file(stored, folder / self.name, metadata={self.metadata: text})

    def description(self, folder: Path) -> dict[str, Any]:
        """What was given to `save`, with `path` as a `DiffusionPath`.

        Raises whatever reading raises; see `unreadable`.
        """
        from safetensors import safe_open

        with safe_open(folder / self.name, framework="pt") as content:
            values: dict[str, Any] = json.loads((content.metadata() or {})[self.metadata])
        if values["path"]["prediction"] not in get_args(Prediction):
            raise ValueError(f"it predicts {quoted(values['path']['prediction'])}")
        return values | {"path": DiffusionPath(**values["path"])}

    def load(self, folder: Path, network: nn.Module, device: torch.device) -> tuple[Tensor, Tensor]:
        """Fill a network of the meta device, frozen; return mean and deviation, all on `device`.

        Raises `InputError` if the file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            stored = load_file(folder / self.name)
            mean, deviation = stored.pop(_MEAN), stored.pop(_DEVIATION)
            weights = {key.removeprefix(self.prefix): value for key, value in stored.items()}
            network.load_state_dict(weights, assign=True)
        except (SafetensorError, KeyError, RuntimeError, OSError) as error:
            raise self.unreadable(folder, error) from None
        network.requires_grad_(False).eval().to(device)
        return mean.to(device), deviation.to(device)

    def unreadable(self, folder: Path, error: Exception) -> InputError:
        """The error for a damaged file."""
        return damaged(folder / self.name, error, _STAGE)

    def digest(self, folder: Path) -> str:
        """SHA-256 of the file; raises `InputError` where there is none."""
        file = folder / self.name
        if not file.exists():
            raise InputError(f"{folder} holds no {self.name}; run the stage `finetune`")
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
