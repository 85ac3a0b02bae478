"""Adapter files: read in diffusers' or kohya's names, written in either, equal content equal bytes.

Reads and writes the safetensors file it is given and nothing else; a pickle is never opened.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dermaflux.errors import InputError
from dermaflux.generators.flux_lora.files import kohya_naming
from dermaflux.generators.flux_lora.files.kohya_naming import LoraLayer
from dermaflux.generators.flux_lora.model import lora

DIFFUSERS_CONFIG = "lora_adapter_metadata"
"""Key of the metadata under which diffusers keeps peft's description of the adapter."""
_PREFIX = "transformer."


@dataclass(frozen=True)
class AdapterFile:
    """An adapter as its file holds it."""

    layers: dict[str, LoraLayer]
    """By diffusers' name of the Linear, such as transformer_blocks.0.attn.to_q."""
    metadata: dict[str, Any]
    """What this project wrote beside the weights; empty in files of others."""
    naming: Literal["diffusers", "kohya"]

    @property
    def parameters(self) -> int:
        """Numbers in the low-rank matrices."""
        return sum(layer.down.numel() + layer.up.numel() for layer in self.layers.values())


def read(path: Path) -> AdapterFile:
    """The adapter in a safetensors file of either naming.

    Raises `InputError` when the file is damaged, a pickle, or no LoRA of a FLUX transformer.
    """
    tensors, header = _read_file(path)
    metadata = json.loads(header.get(lora.METADATA_KEY, "{}"))
    if any(name.startswith((kohya_naming.PREFIX, "lora_te")) for name in tensors):
        layers = kohya_naming.separate(_layers(tensors, ("lora_down", "lora_up"), None, path))
        return AdapterFile(layers, metadata, "kohya")
    config = json.loads(header.get(DIFFUSERS_CONFIG, "null"))
    if config is not None:
        config = _under(config, _PREFIX)
    foreign = next((name for name in tensors if not name.startswith(_PREFIX)), None)
    if foreign is not None:
        raise InputError(
            f"{path} holds {foreign}, which is not a layer of a FLUX transformer; give a LoRA of "
            "the transformer alone in diffusers' or kohya's names"
        )
    named = _under(tensors, _PREFIX)
    return AdapterFile(_layers(named, ("lora_A", "lora_B"), config, path), metadata, "diffusers")


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        raise InputError(
            f"{path} is not a .safetensors file, and no other format is opened because a pickle "
            "can run code; convert it first"
        )
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(f"{path} cannot be read ({reason}); download it again") from None


def _under(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name.startswith(prefix)
    }


def _layers(
    tensors: Mapping[str, Tensor],
    names: tuple[str, str],
    config: dict[str, Any] | None,
    path: Path,
) -> dict[str, LoraLayer]:
    """Pairs of matrices by layer; every tensor of the file is used, or `InputError`."""
    left = dict(tensors)
    down_end, up_end = (f".{name}.weight" for name in names)
    layers = {}
    for name in sorted(name.removesuffix(down_end) for name in left if name.endswith(down_end)):
        down, up = left.pop(name + down_end), left.pop(name + up_end, None)
        if up is None or down.ndim != 2 or up.ndim != 2 or up.shape[1] != down.shape[0]:
            raise InputError(
                f"{path} has no matching pair of matrices for the layer {name}; download the LoRA "
                "again"
            )
        alpha = left.pop(f"{name}.alpha", None)
        if alpha is not None:
            layers[name] = LoraLayer(down, up, float(alpha))
        else:
            layers[name] = LoraLayer(down, up, _alpha_of(config, name, down.shape[0]))
    if left or not layers:
        what = next(iter(sorted(left)), "no low-rank matrix at all")
        raise InputError(
            f"{path} holds {what}, which is not a LoRA of Linear layers; give one without DoRA, "
            "LoKr or text encoders, in diffusers' or kohya's names"
        )
    return layers


def _alpha_of(config: dict[str, Any] | None, name: str, rank: int) -> float:
    """A layer's alpha by peft's description; without one it is the rank, a scale of 1."""
    if config is None:
        return float(rank)
    from peft.utils.other import get_pattern_key

    patterns = config.get("alpha_pattern") or {}
    alpha = float(patterns.get(get_pattern_key(patterns, name), config.get("lora_alpha", rank)))
    return alpha * math.sqrt(rank) if config.get("use_rslora") else alpha


def diffusers_bytes(layers: Mapping[str, LoraLayer], metadata: Mapping[str, Any]) -> bytes:
    """The file that `FluxPipeline.load_lora_weights` opens, scale and all."""
    from peft import LoraConfig

    rank = Counter(layer.rank for layer in layers.values()).most_common(1)[0][0]
    alpha = Counter(layer.alpha for layer in layers.values()).most_common(1)[0][0]
    config = LoraConfig(
        r=rank,
        lora_alpha=lora.whole(alpha),
        init_lora_weights=True,
        target_modules=sorted(layers),
        rank_pattern=_others(layers, lambda layer: layer.rank, rank),
        alpha_pattern=_others(layers, lambda layer: lora.whole(layer.alpha), lora.whole(alpha)),
    )
    tensors = {}
    for name, layer in layers.items():
        # Parts of one fused layer may share a matrix, which safetensors refuses.
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = layer.down.clone()
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = layer.up
    return lora.file_bytes(tensors, config.to_dict(), metadata)


def _others(
    layers: Mapping[str, LoraLayer], value: Callable[[LoraLayer], Any], common: float
) -> dict[str, Any]:
    # "^" ties the name to its start: proj_out would also match a block's proj_out otherwise.
    return {f"^{name}": value(layer) for name, layer in layers.items() if value(layer) != common}


def kohya_bytes(
    layers: Mapping[str, LoraLayer], metadata: Mapping[str, Any], dtype: torch.dtype
) -> bytes:
    """The file that ComfyUI, sd-scripts and Forge open."""
    from safetensors.torch import save

    rank = Counter(layer.rank for layer in layers.values()).most_common(1)[0][0]
    alpha = Counter(layer.alpha for layer in layers.values()).most_common(1)[0][0]
    tensors = {}
    for name, layer in kohya_naming.fused(layers).items():
        tensors[f"{name}.lora_down.weight"] = layer.down.to(dtype, copy=True)
        tensors[f"{name}.lora_up.weight"] = layer.up.to(dtype).contiguous()
        tensors[f"{name}.alpha"] = torch.tensor(layer.alpha, dtype=torch.float32)
    header = {
        "format": "pt",
        "modelspec.architecture": "flux-1-dev/lora",
        "ss_base_model_version": "flux1",
        "ss_network_module": "networks.lora_flux",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(lora.whole(alpha)),
        "ss_apply_t5_attn_mask": "False",
        lora.METADATA_KEY: json.dumps(dict(metadata), sort_keys=True),
    }
    return lora.ordered(save(tensors, metadata=header))
