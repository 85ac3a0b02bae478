"""A finished LoRA in place of training: `imported` names a file, a folder or a hub repository.

The authors' own weights are `StathisGln/DermaFlux`. Reads the file, in any naming `adapter_file`
knows, and models/backbone/ for shapes; writes models/generator/ as training does.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from dermaflux.core import hub
from dermaflux.errors import InputError, quoted
from dermaflux.generators.flux_lora.files import (
    adapter_bytes,
    adapter_file,
    other_files,
    peft_description,
)
from dermaflux.generators.flux_lora.files.kohya_naming import LoraLayer
from dermaflux.generators.flux_lora.model import lora, pipeline
from dermaflux.generators.flux_lora.settings import Finetune
from dermaflux.generators.protocol import Facts
from dermaflux.tracking.runs import Log

_KEY = "finetune.flux_lora.imported"
AUTHORS = "StathisGln/DermaFlux"
_FILES = {AUTHORS: "flux_lora_64_64.safetensors"}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def write(settings: Finetune, backbone: Path, folder: Path, log: Log) -> Facts:
    """Write the adapter that `settings` name, converted and checked against the backbone.

    Raises `InputError` when it cannot be had, is damaged, or was made for another architecture.
    """
    name = str(settings.imported)
    path, origin = _locate(name, settings.imported_revision)
    adapter = adapter_file.read(path)
    transformer = pipeline.on_meta(backbone)["transformer"]
    _check_fit(adapter.layers, transformer, name, pipeline.reference(backbone).name)
    if not any(bool(layer.up.any() and layer.down.any()) for layer in adapter.layers.values()):
        raise InputError(
            f"{_KEY} {quoted(name)} holds matrices of zeros, as before the first step of training, "
            "and would change nothing; give a later step of that training"
        )
    # Files of an earlier version call it text_policy.
    padding = adapter.metadata.get("prompt_padding") or adapter.metadata.get("text_policy")
    trained_with = padding or ("pad512" if name == AUTHORS else None)
    if trained_with not in (None, settings.prompt_padding):
        print(
            f"finetune: {quoted(name)} was trained with prompt padding {trained_with} but "
            f"finetune.flux_lora.prompt_padding is {settings.prompt_padding}; set it to "
            f"{trained_with} for the images it was made for"
        )
    if adapter.text_encoder_tensors:
        print(
            f"finetune: {quoted(name)} also adapts text encoders ({adapter.text_encoder_tensors:,} "
            "tensors), which stay as they are here: images differ from those of programs that "
            "apply all of it"
        )
    ranks = Counter(layer.rank for layer in adapter.layers.values())
    alphas = Counter(layer.alpha for layer in adapter.layers.values())
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    facts: Facts = {
        "imported": origin,
        "imported_sha256": digest,
        "imported_naming": adapter.naming,
        "text_encoder_tensors_left_out": adapter.text_encoder_tensors,
        "targets": _targets(adapter.layers, transformer),
        "rank": ranks.most_common(1)[0][0],
        "alpha": lora.whole(alphas.most_common(1)[0][0]),
        "trainable_parameters": adapter.parameters,
        "prompt_padding": settings.prompt_padding,
        "base_dtype": settings.base_dtype,
    }
    content = adapter_bytes.diffusers_bytes(adapter.layers, facts)
    (folder / lora.WEIGHTS).write_bytes(content)
    log.metrics({"trainable_parameters": float(adapter.parameters)}, 0)
    summary = (
        f"None: the LoRA was imported from {origin}, {len(adapter.layers):,} layers of rank "
        f"{facts['rank']}, {adapter.parameters:,} parameters, prompt padding "
        f"{facts['prompt_padding']}."
    )
    return {**facts, "summary": summary, "backbone": pipeline.reference(backbone).identity}


def _locate(name: str, revision: str | None) -> tuple[Path, str]:
    """The file, and what provenance calls it: never a path of this machine."""
    path = Path(name)
    if path.is_dir():
        file = _only(name, sorted(entry.name for entry in path.iterdir() if entry.is_file()))
        return path / file, f"{path.resolve().name}/{file}"
    if path.is_file():
        return path, path.name
    if not _HUB_ID.fullmatch(name):
        raise InputError(
            f"{_KEY} {quoted(name)} is neither a file nor a hub id; give a .safetensors file or a "
            f"repository such as {AUTHORS}"
        )
    if revision is None:
        raise InputError(
            f"{_KEY} {quoted(name)} is no file here and, as a repository of the hub, has no "
            "imported_revision; correct the path, or pin the commit to use, as its page on the "
            "hub shows it under Files"
        )
    from huggingface_hub import hf_hub_download, list_repo_files

    instead = "try again, or name a downloaded file"
    with hub.opening(_KEY, name, revision, "file", instead):
        listed = [] if name in _FILES else list_repo_files(name, revision=revision)
        file = _FILES.get(name) or _only(name, listed)
        commit = hub.commit(_KEY, name, revision, file, instead)
        if peft_description.PEFT_CONFIG in listed:  # peft keeps alpha in it
            hf_hub_download(name, peft_description.PEFT_CONFIG, revision=commit)
        return Path(hf_hub_download(name, file, revision=commit)), f"{name}@{commit}/{file}"


def _only(name: str, files: list[str]) -> str:
    """The weights among the files of a folder or repository."""
    weights = [file for file in files if file.endswith(".safetensors")]
    for usual in (lora.WEIGHTS, peft_description.PEFT_WEIGHTS):
        if usual in weights:
            return usual
    if len(weights) != 1:
        listed = f" ({', '.join(map(quoted, weights[:3]))}, ...)" if weights else ""
        raise InputError(
            f"{_KEY} {quoted(name)} holds {len(weights)} .safetensors files{listed} and not 1; "
            "name the file itself, downloaded where it is on the hub"
        )
    return weights[0]


def _check_fit(
    layers: Mapping[str, LoraLayer], transformer: nn.Module, name: str, backbone: str
) -> None:
    modules = dict(transformer.named_modules())
    for layer_name, layer in layers.items():
        module = modules.get(layer_name)
        if not isinstance(module, nn.Linear):
            raise InputError(
                f"{_KEY} {quoted(name)} adapts {layer_name}, which the backbone {backbone} does "
                "not have; set backbone.repository to the model the LoRA was made for"
            )
        theirs = (layer.up.shape[0], layer.down.shape[1])
        ours = (module.out_features, module.in_features)
        if theirs != ours:
            known = other_files.width(layer_name, theirs[1])
            raise InputError(
                f"{_KEY} {quoted(name)} has {theirs[0]} x {theirs[1]} for {layer_name}{known}, "
                f"which is {ours[0]} x {ours[1]} in the backbone {backbone}; set "
                "backbone.repository to the model the LoRA was made for"
            )


def _targets(layers: Mapping[str, LoraLayer], transformer: Any) -> str:
    """The parameter that would train these layers, `other` when none would."""
    for targets in ("attention", "all-linear"):
        if sorted(layers) == lora.target_modules(transformer, targets):  # type: ignore[arg-type]
            return targets
    return "other"
