"""The fine-tuning loss of a step, micro-batch by micro-batch, and what the step costs.

A step's loss is the mean over the real images of all its micro-batches: within a step each image
weighs the same whatever its size and whichever process holds it. Between steps it does not. With
one micro-batch a step an image weighs 1 / (images of its bucket's micro-batch), so an image of 512
pixels, of which fewer fit, weighs more than one of 128. More micro-batches a step even that out. A
constant in place of each step's own number would weigh all alike, but steps of small batches would
move the weights less then, and the clip would cut those of large ones.

Reads and writes nothing but the caches its sources stand for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from dermaflux.core.distributed import Processes
from dermaflux.core.seeds import generator
from dermaflux.generators.flux_lora.model import flops
from dermaflux.generators.flux_lora.model.loss import flow_matching_loss, noise_and_sigma
from dermaflux.generators.flux_lora.model.prompt_padding import TextSource
from dermaflux.generators.flux_lora.settings import Finetune
from dermaflux.generators.flux_lora.training.buckets import MicroBatch, Order
from dermaflux.training.prefetch import StepsAhead, moved
from dermaflux.training.protocol import Step
from dermaflux.training.step_log import Work

if TYPE_CHECKING:
    from dermaflux.generators.data.images import Sample
    from dermaflux.generators.data.latents import LatentSource


@dataclass(frozen=True)
class _Prepared:
    """A micro-batch with its noise, made on the CPU and on its way to the device."""

    micro: MicroBatch
    samples: list[Sample]
    latents: Tensor
    noise: Tensor
    sigma: Tensor


class Objective:
    """What `fit` asks for: losses of a step, and its work; `model` is a FluxTransformer2DModel."""

    def __init__(
        self,
        model: Any,
        weights: Mapping[str, nn.Parameter],
        samples: Sequence[Sample],
        caption_tokens: Sequence[int],
        order: Order,
        latents: LatentSource,
        text: TextSource,
        settings: Finetune,
        seed: int,
        steps: int,
        processes: Processes,
    ) -> None:
        self._weights = weights
        self._model, self._samples, self._caption_tokens = model, samples, caption_tokens
        self._order, self._latents, self._text = order, latents, text
        self._settings, self._seed, self._processes = settings, seed, processes
        self._ahead = StepsAhead(lambda item: self._prepared(*item), self._items, steps)
        self._shape = flops.FluxShape.of(model.config)
        self._adapter = flops.LoraShape(settings.rank, settings.targets)

    def weights(self) -> Mapping[str, nn.Parameter]:
        """The adapter's weights by name."""
        return self._weights

    def parts(self, step: int) -> Iterator[Step]:
        """This process's micro-batches of an optimiser step, counted from 0."""
        ahead = self._ahead.at(step)
        real = sum(micro.real for micro in self._order.at(step))
        for _ in self._share(step):
            prepared = next(ahead)
            errors = self._errors(prepared)
            images = prepared.samples[: prepared.micro.real]
            # Fillers give the batch its static shape; slicing keeps them out of the gradient.
            loss = errors[: prepared.micro.real].sum() / real
            yield Step(loss, [sample.image_id for sample in images], ahead.waited)

    def close(self) -> None:
        """Drop what was prepared for later steps."""
        self._ahead.close()

    def _share(self, step: int) -> list[MicroBatch]:
        return self._order.share(step, self._processes.rank, self._processes.world)

    def _items(self, step: int) -> list[tuple[int, MicroBatch]]:
        return [(step, micro) for micro in self._share(step)]

    def _prepared(self, step: int, micro: MicroBatch) -> _Prepared:
        samples = [self._samples[index] for index in micro.members]
        generators = [generator(self._seed, "finetune", step, s.image_id) for s in samples]
        latents = self._latents.draw(samples, generators)
        noise, sigma = noise_and_sigma(latents, self._settings.timestep_density, generators)
        device = self._processes.device
        return _Prepared(
            micro, samples, moved(latents, device), moved(noise, device), moved(sigma, device)
        )

    def _errors(self, batch: _Prepared) -> Tensor:
        captions = [sample.caption for sample in batch.samples]
        text = self._text(captions, batch.micro.bucket.text_tokens)
        return flow_matching_loss(
            self._model, batch.latents, batch.noise, batch.sigma, text, self._settings.guidance
        )

    def work(self, step: int) -> Work:
        """Images, tokens and FLOP of an optimiser step, over all processes."""
        return sum((self._work(micro) for micro in self._order.at(step)), Work())

    def _work(self, micro: MicroBatch) -> Work:
        bucket, size = micro.bucket, len(micro.members)
        caption_tokens = sum(
            min(self._caption_tokens[member], bucket.text_tokens)
            for member in micro.members[: micro.real]
        )
        tokens = size * bucket.tokens
        flop = flops.training_step(
            self._shape, bucket.image_tokens, bucket.text_tokens, self._adapter
        )
        padding = tokens - micro.real * bucket.image_tokens - caption_tokens
        return Work(micro.real, tokens, padding, size * flop)
