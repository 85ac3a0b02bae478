"""Image-text models as classifiers that saw none of our images (Radford et al. 2021, section 3.1).

A class is the normalised mean of the text features of its sentences; an image belongs to a class in
proportion to the softmax of its cosines with the classes, times the model's own logit scale. Opens
models through open_clip, from the hub's cache or a folder; writes nothing.
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from dermaflux.core import hub
from dermaflux.core.arrays import Array
from dermaflux.core.devices import automatic_device
from dermaflux.core.hashing import folder_digest
from dermaflux.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

_HUB = "hf-hub:"
_TEXT = ["*.json", "*.txt", "*.model", "README.md"]  # configuration, tokenizer, card; no weights
_FORK = "https://github.com/SiyuanYan1/Derm1M"


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from, checked before anything large is loaded."""

    name: str
    """Its key in `zero_shot.models`."""
    source: str
    """What `zero_shot.models` says."""
    address: str
    """What open_clip opens: `hf-hub:` with a repository or `local-dir:` with a folder."""
    identity: str
    """Changes with the weights: repository@commit, or folder name@hash of its files."""
    licence: str
    """As its card states it."""


@dataclass(frozen=True)
class ImageTextModel:
    """A model ready to score."""

    network: Any
    prepare: Any
    """PIL image -> (3, S, S) as the model's configuration says."""
    tokenizer: Any
    device: torch.device


def find(name: str, source: str) -> ModelSource:
    """Configuration and card of `zero_shot.models.<name>`.

    Raises `InputError` when open_clip is not installed, the model is not available, or the
    installed open_clip does not know its configuration.
    """
    try:
        import open_clip
    except ImportError:
        raise InputError(
            f"zero_shot.run names {name} but open_clip is not installed; run "
            "`pip install 'dermaflux[zero-shot]'` or leave zero_shot.run empty"
        ) from None
    parameter = f"zero_shot.models.{name}"
    repository, _, revision = source.removeprefix(_HUB).partition("@")
    folder = Path(source)
    with _opening(parameter, repository, revision or None):
        if source.startswith(_HUB):
            from huggingface_hub import snapshot_download

            folder = Path(
                snapshot_download(repository, revision=revision or None, allow_patterns=_TEXT)
            )
        config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))
    known = {field.name for field in dataclasses.fields(open_clip.CLIPVisionCfg)}
    unknown = sorted(set(config.get("model_cfg", {}).get("vision_cfg", {})) - known)
    if unknown:
        version = getattr(open_clip, "__version__", "")
        raise InputError(
            f"{parameter} {source} has the setting vision_cfg.{unknown[0]}, which open_clip "
            f"{version} does not know; leave {name} out of zero_shot.run, or install its authors' "
            f"open_clip ({_FORK}) in place of the published one"
        )
    at_hub = source.startswith(_HUB) and not revision
    if source.startswith(_HUB) and revision:
        with _opening(parameter, repository, revision):
            _weights(repository, revision)
    licence = hub.licence(folder) or "not stated"
    address = source if at_hub else f"local-dir:{folder}"
    # The folder of a snapshot has its commit as its name.
    identity = (
        f"{_HUB}{repository}@{folder.name}"
        if source.startswith(_HUB)
        else f"{folder.name}@{folder_digest(folder)[:16]}"
    )
    return ModelSource(name, source, address, identity, licence)


def _opening(parameter: str, repository: str, revision: str | None) -> Any:
    return hub.opening(
        parameter,
        repository,
        revision,
        "folder with open_clip's files",
        "give a folder with its files, or leave the model out of zero_shot.run",
    )


def _weights(repository: str, revision: str) -> None:
    """Download the weights of a revision next to its configuration, safetensors if it has any."""
    from huggingface_hub import errors, hf_hub_download

    try:
        hf_hub_download(repository, "open_clip_model.safetensors", revision=revision)
    except errors.EntryNotFoundError:
        hf_hub_download(repository, "open_clip_pytorch_model.bin", revision=revision)


def load(source: ModelSource) -> ImageTextModel:
    """The model with its weights, on the GPU when there is one; only tensors of a pickle are read.

    Raises `InputError` when open_clip cannot build it or the weights do not fit.
    """
    import pickle  # nosec B403 # for the name of its error

    import open_clip

    parameter = f"zero_shot.models.{source.name}"
    try:
        with _opening(parameter, source.address, None):
            network, prepare = open_clip.create_model_from_pretrained(
                source.address, weights_only=True
            )
            tokenizer = open_clip.get_tokenizer(source.address)
    except (AttributeError, EOFError, LookupError, RuntimeError, TypeError, ValueError,
            pickle.UnpicklingError) as error:  # fmt: skip
        problem = textwrap.shorten(" ".join(str(error).split()), 200, placeholder=" ...")
        raise InputError(
            f"{parameter} {source.address} cannot be opened by open_clip ({problem}); give a "
            "folder with matching configuration and weights, or leave it out of zero_shot.run"
        ) from None
    device = automatic_device()
    return ImageTextModel(network.to(device).eval(), prepare, tokenizer, device)


def sentences(words: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every template, with `{c}` replaced by every phrasing of a class."""
    return [template.replace("{c}", phrase) for phrase in words for template in templates]


def class_features(model: ImageTextModel, classes: Sequence[Sequence[str]]) -> Tensor:
    """(C, D) unit vectors from the sentences of C classes."""
    means = []
    with torch.inference_mode():
        for phrases in classes:
            tokens = model.tokenizer(list(phrases)).to(model.device)
            features = normalize(model.network.encode_text(tokens).float(), dim=-1)
            means.append(normalize(features.mean(dim=0), dim=-1))
    return torch.stack(means)


def probabilities(
    model: ImageTextModel, features: Tensor, images: Iterable[Image.Image], batch: int
) -> Array:
    """(N, C) float64 probabilities of the classes of `features` (C, D), rows sum to 1."""
    rows = [np.empty((0, len(features)))]
    with torch.inference_mode():
        scale = model.network.logit_scale.exp().float()
        stream = iter(images)
        while chunk := list(islice(stream, batch)):
            pixels = torch.stack([model.prepare(image) for image in chunk]).to(model.device)
            embedded = normalize(model.network.encode_image(pixels).float(), dim=-1)
            rows.append((scale * embedded @ features.T).double().softmax(dim=1).cpu().numpy())
    return np.concatenate(rows)
