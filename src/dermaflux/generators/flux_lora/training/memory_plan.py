"""What fine-tuning will take of a device's memory, before anything is loaded.

`plan` decides how many blocks have to be recomputed, or says in one sentence why nothing fits.
Base, text encoders and VAE are counted on parts without storage (`pipeline.on_meta`), activations
from the shape (`saved_activations`). Reads and writes nothing. GiB are 2^30 bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from torch import nn

from dermaflux.core.devices import free_memory, require_gpu
from dermaflux.errors import InputError
from dermaflux.generators.flux_lora.model.flops import FluxShape, LoraShape
from dermaflux.generators.flux_lora.model.quantize import BLOCKS, T5_BLOCKS, T5_EXCLUDED
from dermaflux.generators.flux_lora.training.saved_activations import (
    BatchShape,
    Precision,
    activation_bytes,
    block_bytes,
)

if TYPE_CHECKING:
    import torch

    from dermaflux.generators.flux_lora.model.options import BaseDtype

GIB = 2**30
_RUNTIME = 1.25 * GIB
"""Libraries' own: on a GPU the context and cuBLAS's workspace, on a CPU interpreter and code."""
_FRAGMENTS = 0.10  # of the activations, lost between blocks of the allocator
_GRADIENTS = 12  # widths per token that the backward pass of one block holds at once
HEADROOM = 0.05
"""Share of a device's free memory that is left alone."""


@dataclass(frozen=True)
class Training:
    """The parameters that decide the memory of a run."""

    base_dtype: BaseDtype
    adapter: LoraShape
    trainable: int
    """Parameters of the adapter."""
    ema: bool
    text_cache: bool
    checkpointing: Literal["auto", "none", "full"]
    batches: tuple[BatchShape, ...]
    """The static shapes of one process: one per bucket."""
    processes: int = 1
    sharded: bool = False
    """Whether the processes share one copy of the base (FSDP); the adapter is whole in each."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of one process on its device."""

    parts: Mapping[str, float]
    """What stays, by name."""
    activations: Mapping[BatchShape, float]
    """What one micro-batch adds at its peak, by shape."""
    recomputed: int
    blocks: int
    available: float

    @property
    def total(self) -> float:
        """At the peak of the largest micro-batch."""
        return sum(self.parts.values()) + max(self.activations.values())

    def table(self) -> str:
        """Lines to print."""
        lines = [f"{name:<34}{_size(size)}" for name, size in self.parts.items()]
        heaviest = sorted(self.activations.items(), key=lambda item: -item[1])
        for batch, size in heaviest[:4]:
            name = f"{batch.images} x ({batch.image_tokens} + {batch.text_tokens}) tokens"
            lines.append(f"{'activations ' + name:<34}{_size(size)}")
        if len(heaviest) > 4:
            lines.append(f"  and {len(heaviest) - 4} smaller shapes")
        lines.append(
            f"{'peak':<34}{_size(self.total)} of {self.available / GIB:.1f} GiB "
            f"({1 - HEADROOM:.0%} of what is free); "
            f"{self.recomputed} of {self.blocks} blocks recomputed"
        )
        return "\n".join(lines)


def _size(size: float) -> str:
    return f"{size / GIB:9.2f} GiB" if size >= 0.1 * GIB else f"{size / 2**20:9.2f} MiB"


def weight_bytes(model: nn.Module, base_dtype: BaseDtype, encoder: bool = False) -> int:
    """Bytes of a part's weights as `pipeline.load` holds them; any device, meta included."""
    under, excluded = (T5_BLOCKS, T5_EXCLUDED) if encoder else (BLOCKS, ())
    wide = 4 if base_dtype == "fp32" else 2
    total = sum(parameter.numel() for parameter in model.parameters()) * wide
    if base_dtype in ("fp32", "bf16"):
        return total
    for name, module in model.named_modules():
        chosen = name.startswith(under) and not (excluded and name.endswith(excluded))
        if isinstance(module, nn.Linear) and chosen:
            total -= 2 * module.weight.numel()
            total += _quantized(module, base_dtype)
    return total


def _quantized(linear: nn.Linear, base_dtype: BaseDtype) -> int:
    count = linear.weight.numel()
    if base_dtype == "fp8":
        return count + 4 * linear.out_features
    # bitsandbytes: a scale of 8 bits per 64 weights, one of 32 bits per 256 of those.
    return count // 2 + count // 64 + 4 * count // (64 * 256)


def plan(
    parts: Mapping[str, nn.Module], shape: FluxShape, run: Training, device: torch.device
) -> MemoryPlan:
    """The plan with the fewest recomputed blocks that fits `device`, or as the parameter says.

    Raises `InputError` naming needed and available GiB and what to change, and for a large model on
    a CPU that nobody asked for.
    """
    count = sum(parameter.numel() for parameter in parts["transformer"].parameters())
    require_gpu("the transformer of backbone.repository", count, device)
    return fit(parts, shape, run, device.type, usable(free_memory(device)))


def fit(
    parts: Mapping[str, nn.Module], shape: FluxShape, run: Training, kind: str, available: float
) -> MemoryPlan:
    """`plan` for a device of a kind, `cuda` or `cpu`, with so many bytes."""
    lowest = {"auto": 0, "none": 0, "full": shape.blocks}[run.checkpointing]
    highest = {"auto": shape.blocks, "none": 0, "full": shape.blocks}[run.checkpointing]
    fixed = _fixed(parts, shape, run)
    empty = MemoryPlan(fixed, {}, lowest, shape.blocks, available)
    for recomputed in range(lowest, highest + 1):
        peaks = {batch: _peak(shape, run, batch, kind, recomputed) for batch in run.batches}
        candidate = replace(empty, activations=peaks, recomputed=recomputed)
        if candidate.total <= available:
            return candidate
    raise InputError(_too_large(candidate, run, kind))


def _fixed(parts: Mapping[str, nn.Module], shape: FluxShape, run: Training) -> dict[str, float]:
    share = run.processes if run.sharded else 1
    base = weight_bytes(parts["transformer"], run.base_dtype) / share
    if run.sharded:
        # Two blocks are whole at a time: the one at work and the next.
        base += 2 * weight_bytes(parts["transformer"], run.base_dtype) / shape.blocks
    fixed: dict[str, float] = {f"base ({run.base_dtype})": base}
    if not run.text_cache:
        fixed["text encoders"] = weight_bytes(
            parts["text_encoder_2"], run.base_dtype, encoder=True
        ) + weight_bytes(parts["text_encoder"], _whole(run.base_dtype))
    fixed["VAE"] = weight_bytes(parts["vae"], _whole(run.base_dtype))
    fixed["adapter, gradient, two moments"] = 16 * run.trainable
    if run.ema:
        fixed["adapter's moving average"] = 4 * run.trainable
    if run.processes > 1:
        fixed["gradients in transit"] = 4 * run.trainable
    fixed["runtime"] = _RUNTIME
    return fixed


def _whole(base_dtype: BaseDtype) -> BaseDtype:
    return "fp32" if base_dtype == "fp32" else "bf16"


def _peak(shape: FluxShape, run: Training, batch: BatchShape, kind: str, recomputed: int) -> float:
    itemsize = 4 if run.base_dtype == "fp32" else 2
    precision = Precision(itemsize, 4 if kind == "cpu" else itemsize)
    saved = activation_bytes(shape, batch, run.adapter, precision, recomputed)
    working = _GRADIENTS * batch.tokens * shape.width * itemsize
    if recomputed:
        working += block_bytes(shape, 0, batch, run.adapter, precision)
    if run.base_dtype in ("fp8", "nf4"):
        working += 2 * 5 * shape.width**2 * itemsize  # the largest layer, wide again
    return saved * (1 + _FRAGMENTS) + working


def usable(free: float) -> float:
    """Bytes of a device's free memory that a plan may fill.

    A GPU's context exists when its free memory is read, and `runtime` counts it once more.
    """
    return (1 - HEADROOM) * free


def batches(shapes: Iterable[tuple[tuple[int, int], int]]) -> tuple[BatchShape, ...]:
    """From ((image tokens, text tokens), images) of every bucket."""
    return tuple(BatchShape(images, *tokens) for tokens, images in shapes)


def _too_large(plan: MemoryPlan, run: Training, kind: str) -> str:
    where = "GPU" if kind == "cuda" else "machine"
    fixes = []
    # What lets a run continue from its checkpoint stands first.
    if run.checkpointing == "none":
        fixes.append("set runtime.finetune.gradient_checkpointing to auto")
    if not run.text_cache:
        fixes.append("set runtime.finetune.text_cache to true")
    if max(batch.images for batch in run.batches) > 1:
        fixes.append("lower finetune.flux_lora.batch_tokens")
    if run.base_dtype != "nf4":
        smaller = {"fp32": "bf16", "bf16": "fp8 or nf4", "fp8": "nf4"}[run.base_dtype]
        fixes.append(f"set finetune.flux_lora.base_dtype to {smaller}")
    if not fixes:
        fixes.append("train at smaller finetune.scales, or on a larger device")
    return (
        f"fine-tuning needs {plan.total / GIB:.1f} GiB with {plan.recomputed} of {plan.blocks} "
        f"blocks recomputed but the {where} has {plan.available / GIB:.1f} GiB to use; "
        + ", ".join(fixes[:-1])
        + (" or " if len(fixes) > 1 else "")
        + fixes[-1]
    )
