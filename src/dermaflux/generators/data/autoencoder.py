"""The frozen autoencoder of the latents: which one it is, opening it, decoding to pixels.

Reads models/backbone/ or the folder or hub repository that the parameter `latents` of a generator
names; writes nothing.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dermaflux.core import hub
from dermaflux.core.arrays import Pixels
from dermaflux.core.files import read_json
from dermaflux.core.hashing import folder_digest
from dermaflux.errors import InputError, one_line, quoted
from dermaflux.generators.data.options import BACKBONE

_PIN, _CONFIG, _PART = "pin.json", "config.json", "vae"
_CLASSES = ("AutoencoderKL", "AutoencoderTiny")
_SHOWN = 12  # characters of an identity in a sentence
_INSTEAD = "name a folder that diffusers saved with an autoencoder"


@dataclass(frozen=True)
class AutoencoderReference:
    """Which autoencoder a value of `latents` stands for."""

    source: str
    """Folder of the autoencoder itself, or a hub id."""
    revision: str | None
    subfolder: str | None
    """Inside a hub repository."""
    identity: str
    """Changes with the weights: hash of the folder's files, or repository@revision(/subfolder)."""
    licence: str
    """Of images that it decodes."""
    parameter: str
    """That names it, for errors: `finetune.latent_ddpm.latents`."""


def reference(
    latents: str, revision: str | None, backbone: Path, generator: str
) -> AutoencoderReference:
    """Resolve a generator's `latents`, and of a hub id the commit that its revision stands for.

    Raises `InputError` for a folder without an autoencoder.
    """
    parameter = f"finetune.{generator}.latents"
    source, subfolder, licence = latents, None, f"see {latents}"
    if latents == BACKBONE:
        source, revision, licence = pinned(backbone, revision)
        subfolder = _PART
    folder = Path(source)
    if revision is not None and not folder.is_dir():
        if latents != BACKBONE:  # the stage `backbone` has pinned a commit
            revision = hub.commit(parameter, source, revision, _CONFIG, _INSTEAD)
        identity = "/".join(filter(None, (f"{source}@{revision}", subfolder)))
        return AutoencoderReference(source, revision, subfolder, identity, licence, parameter)
    found = next((f for f in (folder, folder / _PART) if (f / _CONFIG).is_file()), None)
    if found is None:
        fix = "run the stage `backbone`" if latents == BACKBONE else "name a folder diffusers saved"
        raise InputError(f"{quoted(source)} holds no autoencoder ({_CONFIG} is not there); {fix}")
    return AutoencoderReference(str(found), None, None, folder_digest(found), licence, parameter)


def pinned(backbone: Path, revision: str | None = None) -> tuple[str, str | None, str]:
    """Where models/backbone/ has its weights: folder or hub id, commit, licence of images."""
    if not (backbone / _PIN).exists():
        return str(backbone), revision, "CC0"
    pin = read_json(backbone / _PIN, "the stage backbone", "repository", "revision")
    source = str(pin["repository"])
    return source, pin["revision"], hub.licence(Path(source)) or f"see {source}"


def load(origin: AutoencoderReference, device: torch.device) -> Any:
    """The frozen AutoencoderKL or AutoencoderTiny in float32.

    Raises `InputError` when it cannot be opened or is of another kind.
    """
    import diffusers
    from diffusers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with _opening(origin):
        name = _config(origin).get("_class_name")
        if name not in _CLASSES:
            raise InputError(
                f"{origin.parameter} {quoted(origin.source)} is of the kind {quoted(name)}; name "
                f"one of the kinds {' and '.join(_CLASSES)}"
            )
        try:
            vae = getattr(diffusers, name).from_pretrained(origin.source, **_where(origin))
        except (KeyError, TypeError, RuntimeError) as error:
            raise InputError(
                f"{origin.parameter} {quoted(origin.source)} cannot be opened "
                f"({one_line(error, 150)}); {_INSTEAD}"
            ) from None
    vae.requires_grad_(False)
    if device.type == "cpu":
        vae.to(memory_format=torch.channels_last)
    return vae.eval().to(device)


def _opening(origin: AutoencoderReference) -> AbstractContextManager[None]:
    return hub.opening(origin.parameter, origin.source, origin.revision, "folder", _INSTEAD)


def _where(origin: AutoencoderReference) -> dict[str, Any]:
    subfolder = {"subfolder": origin.subfolder} if origin.subfolder else {}
    return {"revision": origin.revision, **subfolder}


def _config(origin: AutoencoderReference) -> dict[str, Any]:
    from diffusers import AutoencoderKL

    folder = Path(origin.source)
    if not folder.is_dir():
        return dict(AutoencoderKL.load_config(origin.source, **_where(origin)))
    content = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def require_same(trained: str, origin: AutoencoderReference, weights: Path) -> None:
    """Raise `InputError` where weights were trained with another autoencoder than `origin`."""
    if origin.identity != trained:
        raise InputError(
            f"{weights} was trained with the autoencoder {trained[:_SHOWN]} and "
            f"{quoted(origin.source)} is {origin.identity[:_SHOWN]}; run the stage `finetune` again"
        )


def decode(vae: Any, latents: Tensor) -> Tensor:
    """Images (B, 3, H, W), about -1..1, of latents as `Latents.draw` gives them; differentiable."""
    shift = float(getattr(vae.config, "shift_factor", None) or 0.0)
    raw = latents / float(vae.config.scaling_factor) + shift
    images: Tensor = vae.decode(raw.to(vae.dtype)).sample
    return images


def pixels(vae: Any, latents: Tensor) -> Pixels:
    """uint8 (B, H, W, 3) of latents as `Latents.draw` gives them."""
    images = ((decode(vae, latents).float() + 1) * 127.5).clamp(0, 255)
    decoded: Pixels = images.permute(0, 2, 3, 1).cpu().numpy()
    return np.rint(decoded).astype(np.uint8)
