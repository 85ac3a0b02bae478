"""Spreads the frozen base over all processes: FSDP for what fills the memory.

Each block's weights are gathered just before the block runs and dropped after it. The adapter stays
whole in every process: it is small, and optimiser, average and checkpoint are then the same with
and without sharding. Reads and writes nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import nn

from dermaflux.core.distributed import Processes
from dermaflux.errors import InputError

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

    from dermaflux.generators.flux_lora.settings import Finetune


def check(settings: Finetune, processes: Processes) -> None:
    """Raise `InputError` for settings that a sharded base cannot have."""
    if not processes.sharded:
        return
    if settings.base_dtype in ("fp8", "nf4"):
        raise InputError(
            f"finetune.flux_lora.base_dtype {settings.base_dtype} cannot be sharded: FSDP gathers "
            "weights in their own float type; set it to bf16, or leave --use_fsdp out of accelerate"
        )
    if settings.compile:
        raise InputError(
            "finetune.flux_lora.compile true cannot be combined with --use_fsdp, whose gathering "
            "breaks the graph of a block; set finetune.flux_lora.compile to false, or leave "
            "--use_fsdp out"
        )


def shard(
    transformer: FluxTransformer2DModel, adapter: Iterable[nn.Parameter], processes: Processes
) -> None:
    """Shard every block and what is around them, in place; `adapter` goes whole to the device.

    The transformer may still lie in CPU memory: one block at a time passes through the device.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # A warning against in-place operations on a block's output; diffusers has none there.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    whole = set(adapter)
    for weight in whole:
        weight.data = weight.data.to(processes.device)
    mesh = init_device_mesh(processes.device.type, (processes.world,))
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    for module in (*blocks, transformer):
        fully_shard(module, mesh=mesh, ignored_params=whole)
