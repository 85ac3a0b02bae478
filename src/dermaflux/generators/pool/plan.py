"""What is sampled, and with what: prompt and seed of every image, shards, batches of one length.

Pure. Everything here is a function of its arguments, so any number of processes, and a process that
continues the work of a killed one, agree on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dermaflux.captions.text.prompt_bank import PromptBank
from dermaflux.core.seeds import derived_seed
from dermaflux.core.vocabulary import CLASSES
from dermaflux.generators.protocol import Condition


@dataclass(frozen=True)
class PlannedImage:
    """One image of the pool."""

    index: int
    condition: Condition

    @property
    def image_id(self) -> str:
        """Name of its row; sorts as its index does."""
        return f"synthetic/{self.index:06d}"


@dataclass(frozen=True)
class SamplingBatch:
    """Images sampled together: their conditions are of one group."""

    number: int
    """Unique in the pool; manifests name it."""
    members: tuple[int, ...]
    """Indices of its images, ascending."""


@dataclass(frozen=True)
class Shard:
    """One Parquet file: consecutive images, in batches that hold no image of another shard."""

    number: int
    members: range
    batches: tuple[SamplingBatch, ...]


def plan(images: int, bank: PromptBank, scale: int, seed: int) -> list[PlannedImage]:
    """Classes alternate; seed and prompt of image i depend on (run seed, i) and the bank alone."""
    planned = []
    for index in range(images):
        label = CLASSES[index % len(CLASSES)]
        prompt = bank.draw(label, seed, index)
        diagnosis = bank.diagnosis(label, seed, index)
        condition = Condition(label, prompt, scale, derived_seed(seed, index), diagnosis)
        planned.append(PlannedImage(index, condition))
    return planned


def shards(groups: Sequence[tuple[int, ...]], shard_images: int, batch: int) -> list[Shard]:
    """All shards of a pool, given the group of every image, see `protocol.Sampler.groups`.

    Each holds `shard_images` images, the last what is left. Inside, images of one group are
    batched, `batch` at a time, in the order of the groups.
    """
    pool: list[Shard] = []
    number = 0
    for start in range(0, len(groups), shard_images):
        members = range(start, min(start + shard_images, len(groups)))
        batches = []
        for group in sorted({groups[index] for index in members}):
            equal = [index for index in members if groups[index] == group]
            for first in range(0, len(equal), batch):
                batches.append(SamplingBatch(number, tuple(equal[first : first + batch])))
                number += 1
        pool.append(Shard(len(pool), members, tuple(batches)))
    return pool
