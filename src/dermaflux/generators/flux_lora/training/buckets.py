"""Which images are trained together, and in what order. Pure: reads and writes nothing.

A bucket holds images of one scale whose captions have one text length. All micro-batches of a
bucket have one static shape, filled up to a budget of tokens, so that a GPU sees a few dozen shapes
and no padding beyond the 15 tokens of rounding. The order is a function of (seed, step) alone: the
step number is the whole position, in the middle of an epoch too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from dermaflux.core.distributed import even_share
from dermaflux.core.seeds import generator

_PATCH = 16  # pixels of a token's side: 8 by the autoencoder, 2 by packing
Integers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, order=True)
class Bucket:
    """Images of one scale with captions of one text length."""

    scale: int
    """Side in pixels."""
    text_tokens: int

    @property
    def image_tokens(self) -> int:
        """Tokens of one image in the transformer."""
        return (self.scale // _PATCH) ** 2

    @property
    def tokens(self) -> int:
        """Image and text tokens together."""
        return self.image_tokens + self.text_tokens


@dataclass(frozen=True)
class MicroBatch:
    """Images of one bucket that go through the model together."""

    bucket: Bucket
    members: tuple[int, ...]
    """Indices of samples; those from `real` on repeat others and have weight 0."""
    real: int


@dataclass(frozen=True)
class _Group:
    """One bucket's images, and how they are cut into micro-batches."""

    bucket: Bucket
    samples: Integers
    count: int
    """Micro-batches in an epoch."""
    size: int
    """Images in each of them, fillers included."""


class Order:
    """Every image once an epoch, in shuffled micro-batches of one bucket each.

    A bucket of n images has k = ceil(n / capacity) micro-batches of ceil(n / k) images: even sizes
    leave fewer than k places empty, at most one in a micro-batch, and these repeat other images of
    the bucket with weight 0.
    """

    def __init__(
        self, buckets: Sequence[Bucket], batch_tokens: int, micro_batches: int, seed: int
    ) -> None:
        if not buckets:
            raise ValueError("no samples to put in order")
        self._micro_batches, self._seed = micro_batches, seed
        self._groups = _grouped(buckets, batch_tokens)
        self.shapes = {group.bucket: group.size for group in self._groups}
        """Images per micro-batch of each bucket."""
        self.per_epoch = sum(group.count for group in self._groups)
        """Micro-batches in an epoch."""
        self._epochs: dict[int, _Epoch] = {}

    def steps(self, epochs: int) -> int:
        """Optimiser steps of whole epochs; the last is completed from the epoch after them."""
        return -(-epochs * self.per_epoch // self._micro_batches)

    def at(self, step: int) -> list[MicroBatch]:
        """The micro-batches of optimiser step `step`, counted from 0."""
        first = step * self._micro_batches
        return [self._micro_batch(first + offset) for offset in range(self._micro_batches)]

    def share(self, step: int, rank: int, world: int) -> list[MicroBatch]:
        """The micro-batches of one of `world` processes; raise `InputError` if they cannot share.

        Together the processes take each micro-batch of the step once.
        """
        parameter = "finetune.flux_lora.micro_batches"
        mine = even_share(parameter, self._micro_batches, rank, world)
        first = step * self._micro_batches
        return [self._micro_batch(first + offset) for offset in mine]

    def _micro_batch(self, index: int) -> MicroBatch:
        number, within = divmod(index, self.per_epoch)
        epoch = self._epochs.get(number)
        if epoch is None:
            epoch = _Epoch(self._groups, self._seed, number)
            # A step can reach into the next epoch; nothing older is asked for again in a run.
            previous = {n: e for n, e in self._epochs.items() if n == number - 1}
            self._epochs = {**previous, number: epoch}
        return epoch.micro_batch(within)


def _grouped(buckets: Sequence[Bucket], batch_tokens: int) -> list[_Group]:
    kinds = sorted(set(buckets))
    numbers = {bucket: number for number, bucket in enumerate(kinds)}
    owner = np.fromiter((numbers[bucket] for bucket in buckets), dtype=np.int64, count=len(buckets))
    by_bucket = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner))
    groups = []
    for bucket, samples in zip(kinds, np.split(by_bucket, ends[:-1]), strict=True):
        capacity = max(1, batch_tokens // bucket.tokens)
        count = -(-len(samples) // capacity)
        groups.append(_Group(bucket, samples, count, -(-len(samples) // count)))
    return groups


class _Epoch:
    """The order of one epoch: images shuffled inside buckets, micro-batches over all of them."""

    def __init__(self, groups: Sequence[_Group], seed: int, number: int) -> None:
        draw = generator(seed, "order", number)
        self._groups = groups
        self._shuffled = [
            group.samples[torch.randperm(len(group.samples), generator=draw).numpy()]
            for group in groups
        ]
        self._order = torch.randperm(int(self._ends[-1]), generator=draw).numpy()

    @cached_property
    def _ends(self) -> Integers:
        return np.cumsum([group.count for group in self._groups])

    def micro_batch(self, index: int) -> MicroBatch:
        """The micro-batch at `index` of the epoch."""
        number = int(self._order[index])
        group_index = int(np.searchsorted(self._ends, number, side="right"))
        group, shuffled = self._groups[group_index], self._shuffled[group_index]
        within = number - (int(self._ends[group_index]) - group.count)
        missing = group.count * group.size - len(shuffled)
        # The last `missing` micro-batches have one image less.
        whole = group.count - missing
        start = within * group.size - max(0, within - whole)
        real = group.size - (within >= whole)
        members = shuffled[start : start + real].tolist()
        filler = [] if real == group.size else [int(shuffled[within - whole])]
        return MicroBatch(group.bucket, tuple(members + filler), real)
