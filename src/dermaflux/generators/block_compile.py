"""Compiles a transformer block by block: one graph per kind of block and shape.

All blocks of a kind share their graph, which compiles 57 blocks in the time of two. Reads and
writes nothing of its own; the compiler keeps its cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dermaflux.errors import InputError

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

_SLACK = 8


def compile_blocks(
    transformer: FluxTransformer2DModel, shapes: int, backend: str = "inductor"
) -> None:
    """Compile in place, for as many static input shapes as there are buckets.

    Call it after the adapter is in and before the first step. Each shape may be compiled three
    times: in training, in evaluation without gradient, and in inference mode. `InputError` where a
    block holds 4-bit layers, whose kernels break the graph.
    """
    kinds = {type(module).__name__ for module in transformer.modules()}
    if "Linear4bit" in kinds:
        raise InputError(
            "compile true cannot be combined with base_dtype nf4, whose kernels break the graph of "
            "a block; set compile to false, or base_dtype to fp8"
        )
    dynamo = torch._dynamo.config
    dynamo.recompile_limit = max(dynamo.recompile_limit, 3 * shapes + _SLACK)
    dynamo.accumulated_recompile_limit = max(
        dynamo.accumulated_recompile_limit, 4 * dynamo.recompile_limit
    )
    transformer.compile_repeated_blocks(fullgraph=True, dynamic=False, backend=backend)
