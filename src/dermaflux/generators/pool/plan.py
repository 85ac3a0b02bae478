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


@dataclass(frozen=True)
class Plan:
    """One image to make."""

    index: int
    label: str
    prompt: str
    seed: int
    diagnosis: str | None = None
    """Of the image that the prompt describes."""

    @property
    def image_id(self) -> str:
        """Name of its row; sorts as its index does."""
        return f"synthetic/{self.index:06d}"


@dataclass(frozen=True)
class Batch:
    """Images sampled together: they share a text length."""

    number: int
    """Unique in the pool; manifests name it."""
    members: tuple[int, ...]
    """Indices of its images, ascending."""


@dataclass(frozen=True)
class Shard:
    """One Parquet file: consecutive images, in batches that hold no other's."""

    number: int
    members: range
    batches: tuple[Batch, ...]


def plan(images: int, bank: PromptBank, seed: int) -> list[Plan]:
    """Classes alternate; seed and prompt of image i depend on (run seed, i) and the bank alone."""
    plans = []
    for index in range(images):
        label = CLASSES[index % len(CLASSES)]
        prompt = bank.draw(label, seed, index)
        diagnosis = bank.diagnosis(label, seed, index)
        plans.append(Plan(index, label, prompt, derived_seed(seed, index), diagnosis))
    return plans


def shards(lengths: Sequence[int], shard_images: int, batch: int) -> list[Shard]:
    """All shards of a pool, given the text length in tokens of every image.

    Each holds `shard_images` images, the last what is left. Inside, images of equal length are
    batched, `batch` at a time, shorter texts first.
    """
    found: list[Shard] = []
    number = 0
    for start in range(0, len(lengths), shard_images):
        members = range(start, min(start + shard_images, len(lengths)))
        batches = []
        for length in sorted({lengths[index] for index in members}):
            equal = [index for index in members if lengths[index] == length]
            for first in range(0, len(equal), batch):
                batches.append(Batch(number, tuple(equal[first : first + batch])))
                number += 1
        found.append(Shard(len(found), members, tuple(batches)))
    return found
