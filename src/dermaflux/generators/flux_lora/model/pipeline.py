"""Opens a backbone, whatever it is: the tiny stage's folder, a pinned hub id or another folder.

Reads `models/backbone/`: a diffusers FluxPipeline folder, or `pin.json` with the name and revision
of one. Writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dermaflux.core import hub
from dermaflux.core.devices import automatic_device, memory_shortage
from dermaflux.core.files import damaged, read_json
from dermaflux.core.hashing import folder_digest
from dermaflux.errors import InputError, quoted
from dermaflux.generators.flux_lora.model import weights_file
from dermaflux.generators.flux_lora.model.options import BaseDtype
from dermaflux.generators.flux_lora.model.quantize import quantize

if TYPE_CHECKING:
    from diffusers import FluxPipeline
    from transformers import PreTrainedTokenizerBase

TINY = "tiny"
PIN = "pin.json"
INDEX = "model_index.json"
LICENCE_FILE = "LICENCE.txt"
COMPUTE = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp8": torch.bfloat16,
    "nf4": torch.bfloat16,
}
"""Dtype of activations, and of what a base dtype leaves unquantized."""
TEXT_PARTS = ("text_encoder", "text_encoder_2")
IMAGE_PARTS = ("transformer", "vae")
PARTS = (*IMAGE_PARTS, *TEXT_PARTS)


@dataclass(frozen=True)
class BackboneReference:
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


def reference(folder: Path) -> BackboneReference:
    """Resolve `models/backbone/`; raise `InputError` when it holds no backbone."""
    if (folder / PIN).exists():
        source, revision, digest = _pinned(folder / PIN)
        licence = "FLUX.1-dev non-commercial" if "FLUX.1-dev" in source else f"see {source}"
        if revision is None:
            found = folder_hash(Path(source))
            if digest not in (None, found):
                raise InputError(
                    f"{quoted(source)} has changed since the stage `backbone` pinned it; run "
                    "`dvc repro --force --single-item backbone`, or restore its files"
                )
            licence = hub.licence(Path(source)) or licence
            return BackboneReference(source, None, source, found, licence)
        return BackboneReference(source, revision, source, f"{source}@{revision}", licence)
    if (folder / INDEX).exists():
        return BackboneReference(str(folder), None, TINY, folder_hash(folder), "CC0")
    raise InputError(f"{folder} holds no backbone; run the stage `backbone`")


def _pinned(file: Path) -> tuple[str, str | None, str | None]:
    """Repository, revision of a hub id, digest of a folder."""
    pin = read_json(file, "the stage backbone")
    source, revision, digest = (pin.get(key) for key in ("repository", "revision", "digest"))
    if not isinstance(source, str) or not all(
        isinstance(each, str | None) for each in (revision, digest)
    ):
        raise damaged(file, "it names no repository and revision", "the stage backbone")
    return source, revision, digest


def folder_hash(folder: Path) -> str:
    """Hex digest of all file names and contents of a diffusers folder."""
    if not (folder / INDEX).exists():
        raise InputError(f"{folder} has no {INDEX}; name a folder saved by diffusers")
    return folder_digest(folder)


def quiet() -> None:
    """Silence the libraries' own bars and warnings; the stage prints what matters."""
    from diffusers.utils import logging
    from transformers.utils import logging as transformers_logging

    # Each caption longer than CLIP's 77 tokens would be printed; truncation is counted instead.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


@contextmanager
def _opening(origin: BackboneReference) -> Iterator[None]:
    """Turn what the loaders raise into one sentence; in a folder, name the damaged file."""
    instead = "name a folder saved by diffusers, or a hub id while the hub can be reached"
    folder = Path(origin.source)
    try:
        with hub.opening("backbone.repository", origin.source, origin.revision, "folder", instead):
            yield
    except (InputError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        here = folder.is_dir()
        if memory_shortage(error) or (isinstance(error, InputError) and not here):
            raise
        file, problem = _damage(folder) if here else (None, None)
        cause = error.__context__ if isinstance(error, InputError) else error
        problem = problem or " ".join(str(cause).split())[:150] or type(cause).__name__
        raise _broken(origin, file or folder, problem) from None


def _broken(origin: BackboneReference, file: Path, problem: str) -> InputError:
    """The error for a damaged file or folder of a backbone: of ours, or of others."""
    if origin.name == TINY:
        return damaged(file, problem, "the stage backbone")
    inside = file.relative_to(origin.source).as_posix()
    return InputError(
        f"backbone.repository {quoted(origin.source)} cannot be opened "
        f"({'' if inside == '.' else f'{inside}: '}{problem}); save it again with diffusers, or "
        "download it again"
    )


def _damage(folder: Path) -> tuple[Path | None, str | None]:
    """The first file of a saved pipeline that cannot be read, and why; Nones where all can be."""
    for file in sorted(folder.rglob("*")):
        if file.suffix == ".json":
            try:
                if not isinstance(json.loads(file.read_text(encoding="utf-8")), dict):
                    return file, "it is not a JSON object"
            except (ValueError, RecursionError, OSError) as error:
                return file, str(error)
        elif file.suffix == ".safetensors":
            try:
                weights_file.read_header(file)
            except weights_file.UnreadableError as error:
                return file, error.clause
    return None, None


def _require_all_weights(origin: BackboneReference, name: str, part: torch.nn.Module) -> None:
    """Raise `InputError` where files in a folder lack a parameter: loaders draw it at random."""
    folder = Path(origin.source) / name
    stored = {
        key.rsplit("model.", 1)[-1]  # a prefix that some versions write and others do not
        for file in folder.glob("*.safetensors")
        for key in weights_file.read_header(file).tensors
    }
    if not stored:
        return  # on the hub, or of another format
    names: dict[int, list[str]] = {}  # what is shared has several names and is stored under one
    for key, parameter in part.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(key.rsplit("model.", 1)[-1])
    absent = next((keys[0] for keys in names.values() if stored.isdisjoint(keys)), None)
    if absent is not None:
        raise _broken(origin, folder, f"its weights lack {absent}")


def load(
    folder: Path,
    base_dtype: BaseDtype,
    device: torch.device | None = None,
    parts: Collection[str] = PARTS,
) -> FluxPipeline:
    """The backbone as a FluxPipeline for inference, all weights frozen.

    `base_dtype` decides how the Linear weights of the transformer's blocks and of T5 are stored:
    fp8 by `float8_linear`, nf4 by bitsandbytes; the rest is bf16 then. Nothing is ever stored wider
    than it is used. What is not among `parts` is not read from disk, such as the text encoders when
    all prompts are encoded already. Raises `InputError` when the repository cannot be read or a
    package is missing.
    """
    from diffusers import FluxPipeline

    quiet()
    origin = reference(folder)
    device = device or automatic_device()
    options: dict[str, Any] = {name: None for name in PARTS if name not in parts}
    with _opening(origin):
        pipe = FluxPipeline.from_pretrained(
            origin.source,
            revision=origin.revision,
            dtype=COMPUTE[base_dtype],
            use_safetensors=True,
            **options,
        )
    for name in PARTS:
        part = getattr(pipe, name)
        if part is not None:
            _require_all_weights(origin, name, part)
            part.requires_grad_(False).eval()
    if base_dtype in ("fp8", "nf4"):
        quantize(pipe, base_dtype, device)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def tokenizers(folder: Path) -> tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]:
    """CLIP's and T5's tokenizer of a backbone, without loading any weights."""
    from transformers import AutoTokenizer

    quiet()
    origin = reference(folder)
    with _opening(origin):
        clip, t5 = (
            AutoTokenizer.from_pretrained(
                origin.source, subfolder=part, revision=origin.revision, trust_remote_code=False
            )
            for part in ("tokenizer", "tokenizer_2")
        )
    return clip, t5


def on_meta(folder: Path) -> dict[str, torch.nn.Module]:
    """The pipeline's parts from their configurations alone: shapes without storage.

    Keys: transformer, text_encoder, text_encoder_2, vae.
    """
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import AutoConfig, CLIPTextModel, T5EncoderModel

    quiet()
    origin = reference(folder)
    parts: dict[str, torch.nn.Module] = {}
    with _opening(origin), torch.device("meta"):
        for name, kind in (("transformer", FluxTransformer2DModel), ("vae", AutoencoderKL)):
            described = kind.load_config(origin.source, subfolder=name, revision=origin.revision)
            parts[name] = kind.from_config(described)
        for name, encoder in (("text_encoder", CLIPTextModel), ("text_encoder_2", T5EncoderModel)):
            options = {"subfolder": name, "revision": origin.revision, "trust_remote_code": False}
            config = AutoConfig.from_pretrained(origin.source, **options)  # nosec B615 # in options
            parts[name] = encoder(config)
    return parts
