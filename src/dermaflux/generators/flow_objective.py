"""The fine-tuning loss of a step, micro-batch by micro-batch, and what the step costs.

A step's loss is the mean over the real images of all its micro-batches, each image weighing the
same whatever its size and whichever process holds it. Reads and writes nothing but the caches its
sources stand for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from dermaflux.generators import flop_model
from dermaflux.generators.fit import Step
from dermaflux.generators.flow_step import noise_and_sigma, velocity_errors
from dermaflux.generators.processes import Processes
from dermaflux.generators.step_log import Work
from dermaflux.generators.text_policy import TextSource
from dermaflux.generators.token_buckets import MicroBatch, Order
from dermaflux.params import Finetune
from dermaflux.seeds import generator

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

    from dermaflux.generators.training_images import Sample


class LatentSource(Protocol):
    """Draws latents of images from their cached posteriors."""

    def draw(self, samples: Sequence[Sample], draws: Sequence[torch.Generator]) -> Tensor:
        """A fresh posterior sample per image, shifted and scaled, (B, 16, h, w)."""
        ...


class Objective:
    """What `fit` asks for: losses of a step, and its work."""

    def __init__(
        self,
        model: FluxTransformer2DModel,
        samples: Sequence[Sample],
        caption_tokens: Sequence[int],
        order: Order,
        latents: LatentSource,
        text: TextSource,
        section: Finetune,
        seed: int,
        processes: Processes,
    ) -> None:
        self._model, self._samples, self._caption_tokens = model, samples, caption_tokens
        self._order, self._latents, self._text = order, latents, text
        self._section, self._seed, self._processes = section, seed, processes
        self._shape = flop_model.Shape.of(model.config)
        self._adapter = flop_model.Adapter(section.rank, section.targets)

    def parts(self, step: int) -> Iterator[Step]:
        """This process's micro-batches of an optimiser step, counted from 0."""
        real = sum(micro.real for micro in self._order.at(step))
        for micro in self._order.share(step, self._processes.rank, self._processes.world):
            members = [self._samples[place] for place in micro.members]
            errors = self._errors(step, micro, members)
            own = members[: micro.real]
            # Fillers give the batch its static shape; slicing keeps them out of the gradient.
            yield Step(errors[: micro.real].sum() / real, [one.image_id for one in own])

    def _errors(self, step: int, micro: MicroBatch, members: list[Sample]) -> Tensor:
        section = self._section
        draws = [generator(self._seed, "finetune", step, one.image_id) for one in members]
        latents = self._latents.draw(members, draws)
        noise, sigma = noise_and_sigma(latents, section.timestep_density, draws)
        text = self._text([one.caption for one in members], micro.bucket.text_tokens)
        return velocity_errors(self._model, latents, noise, sigma, text, section.guidance)

    def work(self, step: int) -> Work:
        """Images, tokens and FLOP of an optimiser step, over all processes."""
        return sum((self._work(micro) for micro in self._order.at(step)), Work())

    def _work(self, micro: MicroBatch) -> Work:
        bucket, places = micro.bucket, len(micro.members)
        own = sum(
            min(self._caption_tokens[member], bucket.text_tokens)
            for member in micro.members[: micro.real]
        )
        tokens = places * bucket.tokens
        flop = flop_model.training_step(
            self._shape, bucket.image_tokens, bucket.text_tokens, self._adapter
        )
        return Work(
            micro.real, tokens, tokens - micro.real * bucket.image_tokens - own, places * flop
        )
