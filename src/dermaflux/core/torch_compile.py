"""Compiles what is trained: a transformer block by block, or a whole network.

A transformer has one graph per kind of block and shape. All blocks of a kind share their graph,
except the first of each kind, whose inputs carry no gradient or have another memory layout: four
graphs serve 57 blocks. Reads and writes nothing itself; the compiler has its own cache.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dermaflux.errors import InputError

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

_SLACK = 8  # sizes that occur outside training, such as the last batch of a grid


def compile_blocks(
    transformer: FluxTransformer2DModel, shapes: int, backend: str = "inductor"
) -> None:
    """Compile in place, for as many static input shapes as there are buckets.

    Call it after adding the adapter and before the first step. Each shape may be compiled three
    times, for training, for evaluation without gradient and for inference mode, and each kind of
    block in two forms. Raises `InputError` for 4-bit layers, whose kernels break the graph, and
    where inductor's C++ compiler is missing.
    """
    kinds = {type(module).__name__ for module in transformer.modules()}
    if "Linear4bit" in kinds:
        raise InputError(
            "compile true cannot be combined with base_dtype nf4, whose kernels break the graph of "
            "a block; set compile to false, or base_dtype to fp8"
        )
    if backend == "inductor" and not any(map(shutil.which, _compilers())):
        raise InputError(
            "compile true needs a C++ compiler on the PATH; install g++ or set compile to false"
        )
    dynamo = torch._dynamo.config
    dynamo.recompile_limit = max(dynamo.recompile_limit, 6 * shapes + _SLACK)
    dynamo.accumulated_recompile_limit = max(
        dynamo.accumulated_recompile_limit, 4 * dynamo.recompile_limit
    )
    transformer.compile_repeated_blocks(fullgraph=True, dynamic=False, backend=backend)


def compiled_forward(network: nn.Module, backend: str = "inductor") -> Callable[[Tensor], Tensor]:
    """`network` compiled for training steps, once per batch size: an epoch has two at most.

    The network keeps its parameters and their names, so that checkpoints, validation and the stored
    classifier are those of an uncompiled run. Without a C++ compiler, which inductor needs on a GPU
    too, it says so and returns the network uncompiled: the result is the same up to rounding.
    """
    if backend == "inductor" and not any(map(shutil.which, _compilers())):
        print(
            "train.compile is true but no C++ compiler is on the PATH; training runs uncompiled, "
            "slower; install g++ to compile"
        )
        return network
    compiled: Callable[[Tensor], Tensor] = torch.compile(network, dynamic=False, backend=backend)
    return compiled


def _compilers() -> list[str]:
    return [os.environ.get("CXX", "g++"), "g++", "clang++"]
