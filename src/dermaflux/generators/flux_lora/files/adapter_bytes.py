"""Adapter files as bytes, in diffusers' names or kohya's; equal content gives equal bytes. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch

from dermaflux.generators.flux_lora.files import kohya_naming
from dermaflux.generators.flux_lora.files.kohya_naming import LoraLayer
from dermaflux.generators.flux_lora.model import lora


def diffusers_bytes(layers: Mapping[str, LoraLayer], metadata: Mapping[str, Any]) -> bytes:
    """The file that `FluxPipeline.load_lora_weights` opens, scale and all."""
    from peft import LoraConfig

    rank = Counter(layer.rank for layer in layers.values()).most_common(1)[0][0]
    alpha: Any = Counter(layer.alpha for layer in layers.values()).most_common(1)[0][0]
    config: Any = LoraConfig(
        r=rank,
        lora_alpha=lora.whole(alpha),  # type: ignore[arg-type]
        init_lora_weights=True,
        target_modules=sorted(layers),
        rank_pattern=_others(layers, lambda layer: layer.rank, rank),
        alpha_pattern=_others(layers, lambda layer: lora.whole(layer.alpha), lora.whole(alpha)),
    )
    tensors = {}
    for name, layer in layers.items():
        # Parts of one fused layer may share a matrix, which safetensors refuses.
        tensors[f"transformer.{name}.lora_A.weight"] = layer.down.clone()
        tensors[f"transformer.{name}.lora_B.weight"] = layer.up
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
