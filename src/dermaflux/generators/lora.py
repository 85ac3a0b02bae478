"""Low-rank adapters on a FLUX transformer: which layers, and the file diffusers loads.

`save` writes pytorch_lora_weights.safetensors in diffusers' names, so that
`FluxPipeline.load_lora_weights(folder)` works as is. Reads nothing else.

On guidance: FLUX.1-dev takes guidance as an input because it was distilled from a guided teacher.
Training targets are unguided images, which is what guidance 1.0 stands for; sampling at 3.5 then
asks for the teacher's sharpening on top (the setting kohya's sd-scripts documents for FLUX).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel
    from peft import LoraConfig

Targets = Literal["attention", "all-linear"]
WEIGHTS = "pytorch_lora_weights.safetensors"
POLICY_KEY = "dermaflux"
_ATTENTION = (
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "add_q_proj",
    "add_k_proj",
    "add_v_proj",
    "to_add_out",
)


def target_modules(transformer: FluxTransformer2DModel, targets: Targets) -> list[str]:
    """Full names of the adapted layers, sorted.

    `attention`: query, key, value and output projections of both streams of the double blocks, and
    query, key, value of the single blocks. `all-linear`: every Linear inside the blocks, including
    feed-forward, modulation and the single blocks' joint output; embedders and final layer not.
    """
    found = []
    for name, module in transformer.named_modules():
        in_block = name.startswith(("transformer_blocks.", "single_transformer_blocks."))
        if not (in_block and isinstance(module, nn.Linear)):
            continue
        if targets == "all-linear" or name.endswith(tuple(f".attn.{end}" for end in _ATTENTION)):
            found.append(name)
    return sorted(found)


def config(
    transformer: FluxTransformer2DModel, targets: Targets, rank: int, alpha: float
) -> LoraConfig:
    """peft's description of the adapter; B starts at zero, so the model starts unchanged."""
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=whole(alpha),  # type: ignore[arg-type]
        init_lora_weights=True,
        target_modules=target_modules(transformer, targets),
    )


def whole(alpha: float) -> float:
    """An alpha as files write it: 16, not 16.0."""
    return int(alpha) if float(alpha).is_integer() else alpha


def add(
    transformer: FluxTransformer2DModel, targets: Targets, rank: int, alpha: float, seed: int
) -> dict[str, nn.Parameter]:
    """Put an adapter into the frozen model and return its weights by name, float32, trainable."""
    transformer.requires_grad_(False)
    devices = [transformer.device] if transformer.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        transformer.add_adapter(config(transformer, targets, rank, alpha))
    weights = {name: p for name, p in transformer.named_parameters() if p.requires_grad}
    for parameter in weights.values():
        parameter.data = parameter.data.float()
    return weights


def count(transformer: FluxTransformer2DModel, targets: Targets, rank: int) -> int:
    """Trainable parameters of an adapter: rank x (inputs + outputs), summed over its layers."""
    layers = [transformer.get_submodule(name) for name in target_modules(transformer, targets)]
    return sum(rank * (layer.in_features + layer.out_features) for layer in layers)  # type: ignore[operator]


def save(transformer: FluxTransformer2DModel, folder: Path, policy: Mapping[str, Any]) -> None:
    """Write the adapter; `policy` (text tokens, scales, ...) goes into the file's metadata.

    Raises nothing of its own. Equal weights give equal bytes.
    """
    from diffusers import FluxPipeline
    from peft.utils import get_peft_model_state_dict

    adapter = transformer.peft_config["default"].to_dict()

    def write(weights: dict[str, torch.Tensor], path: str) -> None:
        Path(path).write_bytes(file_bytes(weights, adapter, policy))

    FluxPipeline.save_lora_weights(
        folder,
        transformer_lora_layers=get_peft_model_state_dict(transformer),
        save_function=write,
    )


def file_bytes(
    weights: Mapping[str, torch.Tensor], adapter: Mapping[str, Any], policy: Mapping[str, Any]
) -> bytes:
    """A safetensors file in diffusers' names: weights by name, peft's description, our policy."""
    from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
    from safetensors.torch import save as serialise

    described = {f"transformer.{key}": _plain(value) for key, value in adapter.items()}
    metadata = {
        "format": "pt",
        LORA_ADAPTER_METADATA_KEY: json.dumps(described, sort_keys=True),
        POLICY_KEY: json.dumps(dict(policy), sort_keys=True),
    }
    kept = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    return ordered(serialise(kept, metadata=metadata))


def ordered(file: bytes) -> bytes:
    """A safetensors file with its metadata sorted; the library writes it in random order."""
    size = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + file[8 + size :]


def _plain(value: Any) -> Any:
    # Sets are written in the order of salted hashes otherwise.
    return sorted(value) if isinstance(value, set) else value
