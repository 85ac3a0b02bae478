"""What is sampled, and with what: class, prompt and seed of every image, shards, batches.

Pure. Everything here is a function of its arguments, so any number of processes, and a process that
continues the work of a killed one, agree on it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dermaflux.captions.text.prompt_bank import PromptBank
from dermaflux.core.seeds import derived_seed
from dermaflux.errors import InputError, quoted
from dermaflux.generators.protocol import Condition

if TYPE_CHECKING:
    from dermaflux.generators.pool.wanted import Target


class Cell(NamedTuple):
    """What one image is asked to show."""

    name: str
    """Its class."""
    value: str | None = None
    """Its skin tone or diagnosis; None where no distribution is wanted."""

    @property
    def key(self) -> str:
        """Name of its prompts in a bank."""
        return self.name if self.value is None else f"{self.name}, {self.value}"


@dataclass(frozen=True)
class PlannedImage:
    """One image of the pool."""

    index: int
    condition: Condition
    cell: Cell
    """Its class, and the value of a wanted distribution."""
    skin_tone: str | None = None
    """What `synthesize.wanted` asks for; None where it asks for no skin tone."""

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


def shares(
    proportions: str | Mapping[str, float], available: Mapping[str, int]
) -> dict[str, float]:
    """Class -> wanted share of the pool, in the order of `available`; the shares add up to 1.

    `proportions` is `balanced`, `natural` (those of `available`, the training images of each class)
    or shares by class; classes that these leave out get no image. Raises `InputError` for a class
    without training images.
    """
    if isinstance(proportions, str):
        _require_images(list(available), available)
        natural = proportions == "natural"
        weights = {name: float(images if natural else 1) for name, images in available.items()}
    else:
        _require_images(list(proportions), available)
        weights = {name: proportions[name] for name in available if name in proportions}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _require_images(names: Sequence[str], available: Mapping[str, int]) -> None:
    if not names:
        raise InputError(
            "synthesize.conditions 'diagnosis' needs training images with a diagnosis but the "
            "training split holds none; set it to malignancy or add such images"
        )
    for name in names:
        if available.get(name, 0):
            continue
        # Of three hundred diagnoses a sentence can name the nearest only.
        present = [other for other, images in available.items() if images]
        close = difflib.get_close_matches(name.lower(), present, n=3)
        fix = f"write {' or '.join(close)}" if close else "leave it out"
        raise InputError(
            f"synthesize.proportions asks for the class {quoted(name)} but the training split holds"
            f" 0 images of it; {fix}, or add such images"
        )


def classes(shares: Mapping[str, float], images: int) -> Iterator[str]:
    """The class of image 0, 1, ...: at each, the one that lacks most of its share so far.

    Every prefix of a pool has the wanted shares, up to about one image of each class, and a larger
    pool continues a smaller one; drawn at random, 600 images would miss a share of one half by 12
    (one standard deviation). Equal shares take turns.
    """
    names, wanted = list(shares), np.array(list(shares.values()))
    given = np.zeros(len(names))
    for number in range(1, images + 1):
        chosen = int(np.argmax(number * wanted - given))
        given[chosen] += 1
        yield names[chosen]


def plan(
    images: int,
    bank: PromptBank,
    shares: Mapping[str, float],
    scale: int,
    seed: int,
    target: Target | None = None,
) -> list[PlannedImage]:
    """The class of image i depends on (i, shares) alone, its seed and prompt on (run seed, i) and
    the prompts of its class.

    With a `target`, the wanted value of image i depends on the classes of the pool as well, and its
    prompt on those of its class and value, which `bank` holds.
    """
    names = list(classes(shares, images))
    cells = target.cells(names) if target else [Cell(name) for name in names]
    planned = []
    for index, cell in enumerate(cells):
        prompt = bank.draw(cell.key, seed, index)
        seeded = derived_seed(seed, index)
        condition = Condition(prompt.label, prompt.text, scale, seeded, prompt.diagnosis)
        tone = target.skin_tone(cell) if target else None
        planned.append(PlannedImage(index, condition, cell, tone))
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
