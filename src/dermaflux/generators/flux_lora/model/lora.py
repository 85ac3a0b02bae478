"""Low-rank adapters on a FLUX transformer: which layers, and the file diffusers loads.

`save` writes pytorch_lora_weights.safetensors in diffusers' names, so that
`FluxPipeline.load_lora_weights(folder)` works as is. Reads nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dermaflux.core.seeds import generator
from dermaflux.generators.flux_lora.model.flops import FluxShape, double_block, single_block
from dermaflux.generators.flux_lora.model.options import Targets

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel
    from peft import LoraConfig

WEIGHTS = "pytorch_lora_weights.safetensors"
DIFFUSERS_CONFIG = "lora_adapter_metadata"
"""Key of the file's metadata under which diffusers keeps peft's description of the adapter."""
METADATA_KEY = "dermaflux"
"""Key of the file's metadata under which this project keeps what it wrote beside the weights."""
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
    names = []
    for name, module in transformer.named_modules():
        in_block = name.startswith(("transformer_blocks.", "single_transformer_blocks."))
        if not (in_block and isinstance(module, nn.Linear)):
            continue
        if targets == "all-linear" or name.endswith(tuple(f".attn.{end}" for end in _ATTENTION)):
            names.append(name)
    return sorted(names)


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


class _Factor(nn.Linear):
    """Half of an adapter: float32 weights that compute in their input's dtype.

    So a bf16 base stays bf16 all through, with no autocast, which would run the norms and keep
    their outputs in float32 and cast each layer's input twice.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.linear(inputs, self.weight.to(inputs.dtype))


def add(
    transformer: FluxTransformer2DModel, targets: Targets, rank: int, alpha: float, seed: int
) -> dict[str, nn.Parameter]:
    """Put an adapter into the frozen model and return its weights by name, float32, trainable.

    B is zero, A uniform as in PEFT but from (seed, name) on the CPU, so that it is the same on
    every device and for every dtype of the base. Needs no autocast.
    """
    from peft.tuners.lora import LoraLayer

    transformer.requires_grad_(False)
    devices = [transformer.device] if transformer.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        transformer.add_adapter(config(transformer, targets, rank, alpha))
    weights: dict[str, nn.Parameter] = {}
    for name, module in transformer.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        module.cast_input_dtype_enabled = False
        for half in ("lora_A", "lora_B"):
            factors = getattr(module, half)
            full = f"{name}.{half}.default.weight"
            factors["default"] = _factor(factors["default"], half == "lora_A", seed, full)
            weights[full] = factors["default"].weight
    return weights


def _factor(layer: nn.Module, random: bool, seed: int, name: str) -> _Factor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    factor = _Factor(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        if random:
            draw = generator(seed, "adapter", name)
            nn.init.kaiming_uniform_(factor.weight, a=5**0.5, generator=draw)
        else:
            factor.weight.zero_()
    return factor.to(weight.device)


def count(transformer: FluxTransformer2DModel, targets: Targets, rank: int) -> int:
    """Trainable parameters of an adapter: rank x (inputs + outputs), summed over its layers."""
    layers = [transformer.get_submodule(name) for name in target_modules(transformer, targets)]
    return sum(rank * (layer.in_features + layer.out_features) for layer in layers)  # type: ignore[operator]


def count_fused(transformer: FluxTransformer2DModel, rank: int) -> int:
    """Parameters of an `all-linear` adapter in the authors' and kohya's layout.

    There query, key and value of a stream are one layer, in the single blocks together with the
    feed-forward's first, so they share one A: 306,315,264 parameters at rank 64 for FLUX.1-dev
    where diffusers' layout has 343,670,784 for the same coverage.
    """
    shape = FluxShape.of(transformer.config)
    repeats = [(double_block, shape.double_blocks), (single_block, shape.single_blocks)]
    total = 0
    for block, times in repeats:
        layers = block(shape.width)
        shared = len({layer.runs for layer in layers if layer.first})
        total += times * shared * rank * shape.width
        total += times * sum(
            rank * layer.outputs if layer.first else layer.adapter_weights(rank) for layer in layers
        )
    return total


def save(transformer: FluxTransformer2DModel, folder: Path, metadata: Mapping[str, Any]) -> None:
    """Write the adapter; `metadata` (rank, prompt padding, ...) goes into the file's header.

    Raises nothing of its own. Equal weights give equal bytes.
    """
    from diffusers import FluxPipeline
    from peft.utils import get_peft_model_state_dict

    adapter = transformer.peft_config["default"].to_dict()

    def write(weights: dict[str, torch.Tensor], path: str) -> None:
        Path(path).write_bytes(file_bytes(weights, adapter, metadata))

    FluxPipeline.save_lora_weights(
        folder,
        transformer_lora_layers=get_peft_model_state_dict(transformer),
        save_function=write,
    )


def file_bytes(
    weights: Mapping[str, torch.Tensor], adapter: Mapping[str, Any], metadata: Mapping[str, Any]
) -> bytes:
    """A safetensors file in diffusers' names: weights by name, peft's description, our metadata."""
    from safetensors.torch import save as serialise

    described = {f"transformer.{key}": _plain(value) for key, value in adapter.items()}
    header = {
        "format": "pt",
        DIFFUSERS_CONFIG: json.dumps(described, sort_keys=True),
        METADATA_KEY: json.dumps(dict(metadata), sort_keys=True),
    }
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    return ordered(serialise(tensors, metadata=header))


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
