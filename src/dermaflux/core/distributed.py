"""The processes that share one training run: rank, device and what they exchange.

`accelerate launch` starts them and sets up the backend (NCCL between GPUs, gloo between CPUs, on
one machine or several). Every process holds all trained weights and the same optimiser, and
gradients are summed once per optimiser step, which costs less than the hooks of a wrapper in every
micro-batch. Without a launcher there is one process and nothing is exchanged.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from dermaflux.core.devices import automatic_device
from dermaflux.errors import InputError

BUCKET_BYTES = 64_000_000
"""Of gradients per exchange: large enough that latency does not count, small beside a model."""
# The others wait this long for the main process, which may be sampling a grid or saving.
_TIMEOUT = timedelta(hours=2)


@dataclass(frozen=True)
class Processes:
    """This process among all of them."""

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")
    sharded: bool = False
    """The frozen base is spread over all processes (FSDP) instead of loaded by each."""

    @property
    def main(self) -> bool:
        """Whether this one logs and writes files."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Indices of this process among `count` items: every `world`-th, from its rank."""
        return range(self.rank, count, self.world)

    def sum_gradients(self, gradients: Iterable[Tensor], bucket_bytes: int = BUCKET_BYTES) -> None:
        """Replace each gradient by its sum over all processes.

        Gradients travel in buckets of one dtype, so the extra memory is `bucket_bytes` or the
        largest single gradient, whichever is larger. Every process must pass the same shapes.
        """
        if self.world == 1:
            return
        for bucket in _buckets(gradients, bucket_bytes):
            _all_reduce(bucket)

    def collect(self, values: Tensor) -> list[float]:
        """Numbers of all processes, (N,) in each: first number 0 of every rank, then number 1."""
        if self.world == 1:
            return [float(value) for value in values]
        import torch.distributed as dist

        local = values.detach().to(self.device, torch.float64)
        ranks = [torch.empty_like(local) for _ in range(self.world)]
        dist.all_gather(ranks, local)
        return [float(value) for value in torch.stack(ranks, 1).flatten()]

    def gather(self, value: Any) -> list[Any]:
        """`value` of every process, in order of rank, in every process."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Return when every process has arrived here."""
        self.gather(None)


def even_share(parameter: str, count: int, rank: int, world: int, also: str = "") -> range:
    """Indices of one of `world` processes among `count` items, as many as every other has.

    Raises `InputError` where they cannot share; `parameter` says `count`, and `also` ends the fix.
    """
    if count % world:
        raise InputError(
            f"{parameter} is {count}, which {world} processes cannot share evenly; set it to a "
            f"multiple of {world}{also}"
        )
    return range(rank, count, world)


def _all_reduce(bucket: Sequence[Tensor]) -> None:
    # In a function, so that one bucket's copy is freed before the next is made.
    import torch.distributed as dist

    flat = torch.cat([gradient.flatten() for gradient in bucket])
    dist.all_reduce(flat)
    sums = torch.split(flat, [gradient.numel() for gradient in bucket])
    for gradient, total in zip(bucket, sums, strict=True):
        gradient.copy_(total.view_as(gradient))


def _buckets(gradients: Iterable[Tensor], limit: int) -> Iterator[list[Tensor]]:
    """Gradients in their order, cut where a bucket would exceed `limit` bytes or change dtype."""
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if bucket and (size + gradient.nbytes > limit or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.nbytes
    if bucket:
        yield bucket


SINGLE = Processes()


def launched() -> bool:
    """Whether a launcher such as `accelerate launch` started this process among others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def join() -> Processes:
    """Connect to the other processes; without a launcher, one process on the GPU or the CPU.

    `--use_fsdp` requests a sharded base. Accelerate leaves FSDP off between CPUs, so the flag is
    read where the launcher puts it; the base is then sharded with torch's own `fully_shard`.
    """
    if not launched():
        return Processes(device=automatic_device())
    from accelerate import PartialState

    state = PartialState(cpu=automatic_device().type != "cuda", timeout=_TIMEOUT)
    device = torch.device("cpu") if state.device.type == "cpu" else state.device
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    return Processes(state.process_index, state.num_processes, device, sharded)


def agreed(processes: Processes, values: Sequence[Any]) -> bool:
    """Whether every process has the same values."""
    return all(other == list(values) for other in processes.gather(list(values)))
