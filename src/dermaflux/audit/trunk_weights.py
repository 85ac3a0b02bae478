"""Weights of the audit's networks: found, fetched and opened, or refused in one sentence.

Reads files of weights and, where a hub repository is named, the hub.
"""

from __future__ import annotations

import pickle  # nosec B403 # for the name of its error
from pathlib import Path
from typing import Any

from dermaflux.core import hub
from dermaflux.errors import InputError, one_line, quoted

_HUB_FILES = {"timm": "model.safetensors", "open_clip": "open_clip_model.safetensors"}
# What torch, safetensors and the libraries raise for a file that is none or of another model.
UNFIT = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, EOFError)


def find_weights(
    weights: str | Path | None, revision: str | None, kind: str, prefix: str = "audit."
) -> Path:
    """The file that `<prefix>weights` names, fetched from the hub where it is a repository.

    Raises `InputError` where there is none.
    """
    named = str(weights)
    path = Path(named)
    if path.is_file():
        return path
    if path.is_absolute() or named.count("/") != 1:
        raise InputError(
            f"{prefix}weights {quoted(named)} is not a file; name one, or a hub repository "
            f"(owner/name) with its {prefix}revision"
        )
    if revision is None:
        raise InputError(hub.unpinned(f"{prefix}weights", named, f"{prefix}revision", "file"))
    from huggingface_hub import hf_hub_download

    file = _HUB_FILES[kind]
    instead = f"download {file} of it where there is a network, and name that file"
    with hub.opening(f"{prefix}weights", named, revision, "file", instead):
        return Path(hf_hub_download(named, file, revision=revision))


def unfit(
    features: str, path: Path, error: Exception, parameter: str = "audit.weights"
) -> InputError:
    """What to raise for a file that is not of the model `features`."""
    return InputError(
        f"{parameter} {quoted(str(path))} are not those of {features} ({first_line(error)}); "
        "name the file of exactly that model"
    )


def first_line(error: Exception) -> str:
    """Of its message, where the first line is the one that says something; else its kind."""
    lines = str(error).splitlines() or [type(error).__name__]
    return one_line(lines[0], 200)


def open_clip_model(name: str, path: Path, asked: str, weights: str) -> Any:
    """A model of open_clip with weights from a file.

    `asked` says what needs it, and `weights` is the parameter that names the file. Raises
    `InputError` where open_clip has no such model or the weights are of another.
    """
    from safetensors import SafetensorError

    try:
        import open_clip
    except ImportError:
        raise InputError(
            f"{asked} needs open_clip, which is not installed; run "
            "`pip install 'dermaflux[zero-shot]'` or set it to another model"
        ) from None
    if name not in open_clip.list_models():
        raise InputError(
            f"{asked}: open_clip has no such model; use a name of open_clip.list_models(), such as "
            "ViT-B-32"
        )
    try:
        return open_clip.create_model(name, pretrained=str(path), weights_only=True)
    except (*UNFIT, SafetensorError, pickle.UnpicklingError) as error:
        raise unfit(f"open_clip:{name}", path, error, weights) from None


def open_clip_scaling(visual: Any) -> tuple[int, tuple[tuple[float, ...], tuple[float, ...]]]:
    """Side of the images that a tower of open_clip reads, mean and deviation of the channels."""
    side = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
    return int(side), (visual.image_mean, visual.image_std)
