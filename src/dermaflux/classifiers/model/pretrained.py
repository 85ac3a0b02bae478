"""Weights to start from: the hub's of a timm model, or a file of the same kind.

Reads safetensors only, nothing is unpickled. All tensors but those of the last layer have to fit; a
last layer of another size is left out, and the new one starts at random.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux.classifiers.model import timm_names
from dermaflux.classifiers.model.timm_names import WEIGHTS
from dermaflux.core import hub
from dermaflux.errors import InputError, quoted
from dermaflux.params import Model

if TYPE_CHECKING:
    from torch import nn


def locate(model: Model) -> Path | None:
    """The file that training starts from, fetched when it is the hub's; None for random weights.

    Raises `InputError` when it is not available, before any work.
    """
    if not model.pretrained:
        return None
    if model.weights is not None:
        path = Path(model.weights)
        if not path.is_file():
            how = "run the stage pretrain" if model.pretrained_here else f"name a {WEIGHTS}"
            raise InputError(f"weights {path} of {model.name} is not a file; {how} of that model")
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
    from huggingface_hub import hf_hub_download

    named = timm_names.resolve(model.name)
    if named.folder is not None:
        path = named.folder / WEIGHTS
        if not path.is_file():
            raise InputError(
                f"model {quoted(model.name)} has no {WEIGHTS} in its folder; put it there, set "
                "pretrained to false, or name a file in weights"
            )
        return path
    if named.repository is None:
        raise InputError(
            f"timm names no weights on the hub for {model.name}; add the tag of some, such as "
            "resnext50_32x4d.tv_in1k, set pretrained to false, or name a file in weights"
        )
    instead = (
        f"download {WEIGHTS} of https://huggingface.co/{named.repository} where there is a "
        "network, and name that file in weights of the model in train.models"
    )
    with hub.opening("pretrained weights", named.repository, named.revision, "file", instead):
        return Path(hf_hub_download(named.repository, WEIGHTS, revision=named.revision))


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in the file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"weights {path} are not a safetensors file ({error}); give a {WEIGHTS} from timm"
        ) from None


def overlay(path: Path, name: str) -> dict[str, Any]:
    """Arguments of `timm.create_model` that start the model `name` from the file."""
    shapes = _shapes(path)
    size = next((shapes[tensor][0] for tensor in _last_layer(name) if tensor in shapes), 0)
    return {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path), "num_classes": size}}


def check(network: nn.Module, path: Path, name: str) -> None:
    """Raise `InputError` when weights of the network, except its last layer, are not in the file.

    timm itself ignores missing tensors once the last layer differs. Where the network averages its
    tokens and the file's does not, the normalisation of the average starts as the identity, as in
    the MAE repository (`models_vit.py`).
    """
    shapes = _shapes(path)
    wanted = [tensor for tensor, _ in network.named_parameters() if tensor not in _last_layer(name)]
    if "norm.weight" in shapes:
        wanted = [tensor for tensor in wanted if not tensor.startswith("fc_norm.")]
    missing = [tensor for tensor in wanted if tensor not in shapes]
    if missing:
        raise InputError(
            f"weights {path} lack {len(missing)} of {len(wanted)} tensors of {name}, such as "
            f"{missing[0]}; give a {WEIGHTS} of exactly that model, with timm's names"
        )


def _last_layer(name: str) -> tuple[str, ...]:
    """Names of the tensors of the last layer."""
    import timm

    classifier = timm.models.get_pretrained_cfg(name).classifier
    modules = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    return tuple(f"{module}.{part}" for module in modules for part in ("weight", "bias"))
