"""What a model's name means to timm: its registry's name, its normalisation, where weights lie.

Names are those of `timm.list_models(pretrained=True)` with or without a tag, names that timm has
renamed, repositories of the hub (`hf-hub:timm/resnet18.a1_in1k`, `timm/resnet18.a1_in1k`, the
address of its page), and folders that timm saved (`local-dir:PATH`). Only a repository that is not
timm's own needs the hub to be understood.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Any

from dermaflux.core import hub
from dermaflux.errors import InputError, quoted

WEIGHTS = "model.safetensors"
"""File of the weights in every repository and folder of timm's."""
_CONFIG = "config.json"
_HUB = ("hf-hub:", "hf_hub:", "https://huggingface.co/", "huggingface.co/", "https://hf.co/")
_LOCAL = "local-dir:"
_OWNER = "timm/"
_CLOSEST = 3


@dataclass(frozen=True)
class Named:
    """A model as timm's registry knows it."""

    name: str
    """For `timm.create_model` and `timm.models.get_pretrained_cfg`."""
    published: Any
    """timm's `PretrainedCfg` of that name, or of the repository or folder."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments with which a repository's or folder's model was built."""
    repository: str | None = None
    """Where the hub has its weights."""
    revision: str | None = None
    folder: Path | None = None
    """Where its weights lie on this machine."""


def resolve(name: str) -> Named:
    """The model that a name means. Raises `InputError` with the closest names when there is none.

    Also when a repository that is not timm's own cannot be opened.
    """
    name = name.strip()
    for prefix in _HUB:
        if name.lower().startswith(prefix):
            return _repository(name[len(prefix) :].rstrip("/"), name)
    if name.lower().startswith(_LOCAL):
        return _folder(Path(name[len(_LOCAL) :]), name)
    if name.startswith(_OWNER):
        return _repository(name, name)
    found = _registered(name)
    if found is None:
        raise _unknown(name)
    return found


def _registered(name: str) -> Named | None:
    from timm.models import get_deprecated_models, get_pretrained_cfg, is_model

    name = get_deprecated_models().get(name) or name
    try:
        published = get_pretrained_cfg(name)
    except RuntimeError:  # an architecture of timm's with a tag that it does not have
        return None
    if published is None or not is_model(name):
        return None
    return Named(name, published, repository=published.hf_hub_id or None)


def _repository(identifier: str, given: str) -> Named:
    """`owner/name@revision` of the hub, or a name of timm's own, whose registry has the weights."""
    repository, _, revision = identifier.partition("@")
    if repository.startswith(_OWNER):
        found = _registered(repository.removeprefix(_OWNER))
        if found is not None and found.published.tag:
            return Named(found.name, found.published, {}, repository, revision or None)
        if found is None:
            raise _unknown(given)
        return found
    if repository.count("/") != 1:
        raise _unknown(given)
    if not revision:
        raise InputError(hub.unpinned("model", repository, "@revision after its name"))
    instead = f"download it where there is a network, and name its folder as {_LOCAL}FOLDER"
    with hub.opening("model", repository, revision, "folder", instead):
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(repository, _CONFIG, revision=revision))
    saved = _saved(path, given)
    return Named(saved.name, saved.published, saved.options, repository, revision)


def _folder(folder: Path, given: str) -> Named:
    path = folder / _CONFIG
    if not path.is_file():
        raise InputError(
            f"model {quoted(given)} names a folder without {_CONFIG}; name one that "
            "timm's `save_for_hf` wrote, or a name of timm.list_models()"
        )
    saved = _saved(path, given)
    return Named(saved.name, saved.published, saved.options, folder=folder)


def _saved(path: Path, given: str) -> Named:
    """The model that a configuration of timm's describes."""
    from timm.models import PretrainedCfg, is_model

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        name, options = content["architecture"], content.get("model_args") or {}
        described = content.get("pretrained_cfg", content)
        known = PretrainedCfg.__dataclass_fields__
        values = {key: value for key, value in described.items() if key in known}
        published = PretrainedCfg(**{**values, "architecture": name})
        usable = is_model(name) and isinstance(options, dict)
        for key in ("mean", "std"):
            if not _is_colour(getattr(published, key)):
                raise ValueError(f"{key} is not three numbers")
    except (ValueError, RecursionError, KeyError, AttributeError, TypeError, OSError) as error:
        raise InputError(
            f"{_CONFIG} of model {quoted(given)} was not written by timm ({quoted(str(error))}); "
            "name a folder or repository that timm wrote"
        ) from None
    if not usable:
        raise _unknown(str(name))
    return Named(name, published, options)


def _is_colour(value: Any) -> bool:
    """Whether a value of JSON, or timm's own default, is one finite number per colour."""
    numbers = value if isinstance(value, list | tuple) else ()
    return len(numbers) == 3 and all(
        isinstance(one, int | float) and not isinstance(one, bool) and isfinite(one)
        for one in numbers
    )


def _unknown(name: str) -> InputError:
    import timm

    plain = name.removeprefix(_OWNER).lower()
    known = timm.list_models()
    architecture = plain.split(".")[0]
    if architecture in known:
        tagged = timm.list_models(f"{architecture}.*", pretrained=True)
        near = get_close_matches(plain, tagged, _CLOSEST, 0) or [architecture]
    else:
        near = get_close_matches(architecture, known, _CLOSEST) or ["resnet18"]
    return InputError(
        f"timm has no model {quoted(name)}; use a name of timm.list_models(), such as "
        f"{', '.join(near)}"
    )
