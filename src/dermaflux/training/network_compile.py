"""A compiled forward pass that leaves the network as it is.

The network keeps its parameters and their names, so that checkpoints, validation and the stored
classifier are those of an uncompiled run. Reads and writes nothing of its own; the compiler keeps
its cache.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import torch
from torch import Tensor, nn


def forward(network: nn.Module, backend: str = "inductor") -> Callable[[Tensor], Tensor]:
    """`network` for training steps, compiled for each size of batch: an epoch has two at most.

    Without a C++ compiler, which inductor needs on a GPU too, it stays as it is and a sentence says
    so: the result is the same to rounding.
    """
    if backend == "inductor" and not any(map(shutil.which, _compilers())):
        print("train.compile is true but no C++ compiler is on the PATH; trains without, slower")
        return network
    compiled: Callable[[Tensor], Tensor] = torch.compile(network, dynamic=False, backend=backend)
    return compiled


def _compilers() -> list[str]:
    return [os.environ.get("CXX", "g++"), "g++", "clang++"]
