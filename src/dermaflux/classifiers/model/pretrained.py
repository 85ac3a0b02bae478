"""Weights to start from: the hub's of a timm model, or a file of the same kind.

Reads safetensors only, nothing is unpickled. What the file holds beside the classifier has to fit;
a classifier of another size is left out, and the new one starts at random.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux.core import hub
from dermaflux.errors import InputError
from dermaflux.params import Model

if TYPE_CHECKING:
    from torch import nn

_FILE = "model.safetensors"  # of every timm repository of the hub


def locate(model: Model) -> Path | None:
    """The file that training starts from, fetched when it is the hub's; None for random weights.

    Raises `InputError` when it is not to be had, before any work.
    """
    if not model.pretrained:
        return None
    if model.weights is not None:
        path = Path(model.weights)
        if not path.is_file():
            raise InputError(
                f"weights {path} of {model.name} is not a file; name a {_FILE} of that model"
            )
    else:
        path = _fetched(model)
    _shapes(path)
    return path


def digest(path: Path | None) -> str | None:
    """sha256 of the file: what a result depends on, wherever it lies."""
    if path is None:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetched(model: Model) -> Path:
    import timm
    from huggingface_hub import hf_hub_download

    published = timm.models.get_pretrained_cfg(model.name)
    if not published.hf_hub_id:
        raise InputError(
            f"timm names no weights on the hub for {model.name}; add the tag of some, such as "
            "resnext50_32x4d.tv_in1k, set pretrained to false, or name a file in weights"
        )
    instead = (
        f"download {_FILE} of https://huggingface.co/{published.hf_hub_id} where there is a "
        "network, and name that file in weights of the model in train.models"
    )
    with hub.opening("pretrained weights", published.hf_hub_id, None, "file", instead):
        return Path(hf_hub_download(published.hf_hub_id, _FILE))


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in the file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"weights {path} are no whole safetensors file ({error}); give a {_FILE} of timm's"
        ) from None


def overlay(path: Path, name: str) -> dict[str, Any]:
    """Arguments of `timm.create_model` that start the model `name` from the file."""
    held = _shapes(path)
    size = next((held[one][0] for one in _classifiers(name) if one in held), 0)
    return {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path), "num_classes": size}}


def check(network: nn.Module, path: Path, name: str) -> None:
    """Raise `InputError` when weights of the network, but for its classifier, are not in the file.

    timm itself passes over what is missing once the classifier differs.
    """
    held = _shapes(path)
    wanted = [one for one, _ in network.named_parameters() if one not in _classifiers(name)]
    missing = [one for one in wanted if one not in held]
    if missing:
        raise InputError(
            f"weights {path} lack {len(missing)} of {len(wanted)} tensors of {name}, such as "
            f"{missing[0]}; give a {_FILE} of that very model, with timm's names"
        )


def _classifiers(name: str) -> tuple[str, ...]:
    """Names of the tensors of the last layer."""
    import timm

    found = timm.models.get_pretrained_cfg(name).classifier
    modules = (found,) if isinstance(found, str) else tuple(found or ())
    return tuple(f"{one}.{part}" for one in modules for part in ("weight", "bias"))
