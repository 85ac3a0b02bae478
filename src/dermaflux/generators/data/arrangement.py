"""The chosen images as a generator on latents is trained on them: size, class, order. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from dermaflux.core.distributed import even_share
from dermaflux.core.seeds import generator
from dermaflux.generators.data import classes
from dermaflux.generators.data.images import Sample, TrainingImages


@dataclass(frozen=True)
class TrainingData:
    """Images to train with and to hold out, all of one size."""

    samples: list[Sample]
    held_out: list[Sample]
    classes: tuple[str, ...]
    condition: str

    def embedding(self, sample: Sample) -> int:
        """Index of the class embedding; that of no class for what has no embedding."""
        index = classes.embedding(self.classes, self.condition, sample.label, sample.diagnosis)
        return len(self.classes) if index is None else index


def arrange(generator: str, scale: int, condition: str, images: TrainingImages) -> TrainingData:
    """Resize and name classes; raises `InputError` where no image has a diagnosis."""
    samples, held_out = (
        [replace(sample, scale=scale) for sample in part]
        for part in (images.samples, images.held_out)
    )
    known = classes.trained_classes(generator, condition, [s.diagnosis for s in samples])
    return TrainingData(samples, held_out, known, condition)


@dataclass(frozen=True)
class MicroBatch:
    """Images that go through the model together."""

    members: tuple[int, ...]
    """Indices of samples."""
    positions: tuple[int, ...] = ()
    """Of each image in the whole run: what its random draws belong to."""

    @property
    def real(self) -> int:
        """All of them count."""
        return len(self.members)


class Order:
    """Every image once an epoch, shuffled; a batch can reach into the next epoch.

    The order is a function of (seed, step) alone: the step is the whole position of a run.
    """

    def __init__(
        self, generator: str, images: int, batch: int, micro_batches: int, seed: int
    ) -> None:
        self._parameter = f"finetune.{generator}.micro_batches"
        self._images, self._batch, self._micro, self._seed = images, batch, micro_batches, seed
        self._epochs: dict[int, list[int]] = {}

    def steps(self, epochs: int) -> int:
        """Optimiser steps of whole epochs; the last is completed from the epoch after them."""
        return -(-epochs * self._images // self._batch)

    def share(self, step: int, rank: int, world: int) -> list[MicroBatch]:
        """The micro-batches of one of `world` processes; raise `InputError` if they cannot share.

        Together the processes take each micro-batch of the step once.
        """
        also = ", and batch to a multiple of that"
        mine = even_share(self._parameter, self._micro, rank, world, also)
        size = self._batch // self._micro
        starts = (step * self._batch + number * size for number in mine)
        return [self._micro_batch(range(start, start + size)) for start in starts]

    def _micro_batch(self, positions: Sequence[int]) -> MicroBatch:
        return MicroBatch(tuple(self._member(place) for place in positions), tuple(positions))

    def _member(self, position: int) -> int:
        number, within = divmod(position, self._images)
        order = self._epochs.get(number)
        if order is None:
            draw = generator(self._seed, "order", number)
            order = torch.randperm(self._images, generator=draw).tolist()
            # Nothing older than the epoch before is asked for again in a run.
            previous = {n: epoch for n, epoch in self._epochs.items() if n == number - 1}
            self._epochs = {**previous, number: order}
        return order[within]
