"""The processes that share one training run: their numbers, their device, their few exchanges.

`accelerate launch` starts them and sets up the backend (NCCL between GPUs, gloo between CPUs, on
one machine or several). Every process holds the whole adapter and the same optimiser, and gradients
are added up once per optimiser step: an adapter has 0.1 to 0.3 billion weights, so one exchange a
step costs less than the hooks of a wrapper in every micro-batch. Without a launcher there is one
process and nothing is exchanged.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from dermaflux.core.devices import automatic_device

# The others wait this long for the main process: it may be sampling a grid or saving.
_PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class Processes:
    """The place of this process among all of them."""

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")
    sharded: bool = False
    """The frozen base is spread over all processes (FSDP) rather than held by each."""

    @property
    def main(self) -> bool:
        """Whether this one logs and writes files."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """This process's part of `count` things."""
        return range(self.rank, count, self.world)

    def add_up(self, gradients: Iterable[Tensor]) -> None:
        """Replace each gradient by its sum over all processes, in one exchange."""
        if self.world == 1:
            return
        import torch.distributed as dist

        own = list(gradients)
        flat = torch.cat([gradient.flatten() for gradient in own])
        dist.all_reduce(flat)
        totals = torch.split(flat, [one.numel() for one in own])
        for gradient, total in zip(own, totals, strict=True):
            gradient.copy_(total.view_as(gradient))

    def collect(self, values: Tensor) -> list[float]:
        """Numbers of all processes, (N,) in each, in the order in which they shared the step."""
        if self.world == 1:
            return [float(value) for value in values]
        import torch.distributed as dist

        own = values.detach().to(self.device, torch.float64)
        found = [torch.empty_like(own) for _ in range(self.world)]
        dist.all_gather(found, own)
        return [float(value) for value in torch.stack(found, 1).flatten()]

    def gather(self, value: Any) -> list[Any]:
        """`value` of every process, in order of rank, in every process."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Return when every process has come here."""
        self.gather(None)


SINGLE = Processes()


def launched() -> bool:
    """Whether a launcher such as `accelerate launch` started this process among others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def join() -> Processes:
    """Meet the other processes; without a launcher, one process on the GPU or the CPU.

    `--use_fsdp` asks for a sharded base. Accelerate leaves FSDP off between CPUs, so the flag is
    read where the launcher puts it, and `base_sharding` shards with torch's own `fully_shard`.
    """
    if not launched():
        return Processes(device=automatic_device())
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)
    device = torch.device("cpu") if state.device.type == "cpu" else state.device
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    return Processes(state.process_index, state.num_processes, device, sharded)


def agreed(processes: Processes, values: Sequence[Any]) -> bool:
    """Whether every process holds the same values."""
    return all(one == list(values) for one in processes.gather(list(values)))
