"""Opens a backbone, whatever it is: the tiny stage's folder, a pinned hub id or another folder.

Reads `models/backbone/`: a diffusers FluxPipeline folder, or `pin.json` with the name and revision
of one. Writes nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dermaflux.errors import InputError

if TYPE_CHECKING:
    from diffusers import FluxPipeline

PIN = "pin.json"
INDEX = "model_index.json"
LICENCE_FILE = "LICENCE.txt"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def automatic_device() -> torch.device:
    """The GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Reference:
    """Which diffusers repository a backbone folder stands for."""

    source: str
    """Folder or hub id to load from."""
    revision: str | None
    name: str
    """What manifests call it: `tiny`, or the repository's name."""
    identity: str
    """Changes when the weights change: hash of the folder's files, or repository@revision."""
    licence: str
    """Licence of images made with it."""


def reference(folder: Path) -> Reference:
    """Resolve `models/backbone/`; raise `InputError` when it holds no backbone."""
    if (folder / PIN).exists():
        pin = json.loads((folder / PIN).read_text(encoding="utf-8"))
        source, revision = pin["repository"], pin["revision"]
        licence = "FLUX.1-dev non-commercial" if "FLUX.1-dev" in source else f"see {source}"
        if revision is None:
            return Reference(source, None, source, folder_hash(Path(source)), licence)
        return Reference(source, revision, source, f"{source}@{revision}", licence)
    if (folder / INDEX).exists():
        return Reference(str(folder), None, "tiny", folder_hash(folder), "CC0")
    raise InputError(f"{folder} holds no backbone; run the stage `backbone`")


def folder_hash(folder: Path) -> str:
    """Hex digest of all file names and contents of a diffusers folder."""
    if not (folder / INDEX).exists():
        raise InputError(f"{folder} has no {INDEX}; name a folder saved by diffusers")
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def quiet() -> None:
    """Silence the libraries' own bars and warnings; the stage prints what matters."""
    from diffusers.utils import logging
    from transformers.utils import logging as transformers_logging

    # Each caption longer than CLIP's 77 tokens would be printed; truncation is counted instead.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def load(folder: Path, precision: str, device: torch.device | None = None) -> FluxPipeline:
    """The backbone as a FluxPipeline for inference, all weights frozen.

    Raises `InputError` when the repository cannot be read.
    """
    from diffusers import FluxPipeline

    quiet()
    found = reference(folder)
    try:
        pipe = FluxPipeline.from_pretrained(
            found.source,
            revision=found.revision,
            dtype=DTYPES[precision],
            use_safetensors=True,
        )
    except OSError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"backbone {found.name} cannot be loaded ({reason})") from None
    for part in (pipe.transformer, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        part.requires_grad_(False).eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device or automatic_device())
