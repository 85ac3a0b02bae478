"""A finished LoRA in place of training: `finetune.imported`, a file or a repository of the hub.

The authors' own weights are `StathisGln/DermaFlux`. Reads models/backbone/ for shapes and the file,
in diffusers' or kohya's naming; writes models/generator/ as training does.
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
from dermaflux.core.files import atomic_folder, write_json
from dermaflux.errors import InputError
from dermaflux.generators.flux_lora.files import adapter_file
from dermaflux.generators.flux_lora.files.kohya_naming import Layer
from dermaflux.generators.flux_lora.model import lora, pipeline
from dermaflux.params import Finetune
from dermaflux.tracking.runs import Log

AUTHORS = "StathisGln/DermaFlux"
_FILES = {AUTHORS: "flux_lora_64_64.safetensors"}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def write(section: Finetune, backbone: Path, output: Path, log: Log) -> None:
    """Write the adapter that `section` names, converted and checked against the backbone.

    Raises `InputError` when it cannot be had, is damaged, or was made for another architecture.
    """
    name = str(section.imported)
    path, origin = _found(name, section.imported_revision)
    adapter = adapter_file.read(path)
    transformer = pipeline.on_meta(backbone)["transformer"]
    _check_fit(adapter.layers, transformer, name, pipeline.reference(backbone).name)
    policy = adapter.policy.get("text_policy")
    made_with = policy or ("pad512" if name == AUTHORS else None)
    if made_with not in (None, section.text_policy):
        print(
            f"finetune: {name} was trained with text policy {made_with} but finetune.text_policy "
            f"is {section.text_policy}; set it to {made_with} for the images it was made for"
        )
    ranks = Counter(layer.rank for layer in adapter.layers.values())
    alphas = Counter(layer.alpha for layer in adapter.layers.values())
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    facts: dict[str, Any] = {
        "imported": origin,
        "imported_sha256": digest,
        "imported_naming": adapter.naming,
        "targets": _targets(adapter.layers, transformer),
        "rank": ranks.most_common(1)[0][0],
        "alpha": lora.whole(alphas.most_common(1)[0][0]),
        "trainable_parameters": adapter.parameters,
        "text_policy": section.text_policy,
        "base_dtype": section.base_dtype,
    }
    content = adapter_file.diffusers_bytes(adapter.layers, facts)
    with atomic_folder(output) as partial:
        (partial / lora.WEIGHTS).write_bytes(content)
        identity = pipeline.reference(backbone).identity
        write_json(partial / lora.SETTINGS, {**facts, "backbone": identity})
    log.metrics({"trainable_parameters": float(adapter.parameters)}, 0)
    print(
        f"finetune: imported {origin}, {len(adapter.layers):,} layers of rank {facts['rank']}, "
        f"{adapter.parameters / 1e6:,.1f} million parameters in diffusers' layout"
    )


def _found(name: str, revision: str | None) -> tuple[Path, str]:
    """The file, and what provenance calls it: never a path of this machine."""
    if Path(name).is_file():
        return Path(name), Path(name).name
    if not _HUB_ID.fullmatch(name):
        raise InputError(
            f"finetune.imported {name} is neither a file nor a hub id; give a .safetensors file or "
            f"a repository such as {AUTHORS}"
        )
    if revision is None:
        raise InputError(
            f"finetune.imported {name} has no finetune.imported_revision; pin the commit to use, "
            "as its page on the hub shows it under Files"
        )
    from huggingface_hub import hf_hub_download, list_repo_files

    instead = "try again, or name a downloaded file"
    with hub.opening("finetune.imported", name, revision, "file", instead):
        file = _FILES.get(name) or _only(name, list_repo_files(name, revision=revision))
        return Path(hf_hub_download(name, file, revision=revision)), f"{name}@{revision}/{file}"


def _only(name: str, files: list[str]) -> str:
    weights = [file for file in files if file.endswith(".safetensors")]
    if lora.WEIGHTS in weights:
        return lora.WEIGHTS
    if len(weights) != 1:
        raise InputError(
            f"finetune.imported {name} holds {len(weights)} .safetensors files and not 1; download "
            "the one wanted and name the file"
        )
    return weights[0]


def _check_fit(
    layers: Mapping[str, Layer], transformer: nn.Module, name: str, backbone: str
) -> None:
    modules = dict(transformer.named_modules())
    for layer_name, layer in layers.items():
        module = modules.get(layer_name)
        if not isinstance(module, nn.Linear):
            raise InputError(
                f"finetune.imported {name} adapts {layer_name}, which the backbone {backbone} does "
                "not have; set backbone.repository to the model the LoRA was made for"
            )
        theirs = (layer.up.shape[0], layer.down.shape[1])
        ours = (module.out_features, module.in_features)
        if theirs != ours:
            raise InputError(
                f"finetune.imported {name} has {theirs[0]} x {theirs[1]} for {layer_name}, which "
                f"is {ours[0]} x {ours[1]} in the backbone {backbone}; set backbone.repository to "
                "the model the LoRA was made for"
            )


def _targets(layers: Mapping[str, Layer], transformer: Any) -> str:
    """The parameter that would train these layers, `other` when none would."""
    for targets in ("attention", "all-linear"):
        if sorted(layers) == lora.target_modules(transformer, targets):  # type: ignore[arg-type]
            return targets
    return "other"
