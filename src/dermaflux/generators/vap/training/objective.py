"""The loss of a step, micro-batch by micro-batch, and the held-out loss.

Equation 3 of VAP-Diffusion, ||target - output||^2 + alpha L_recon. Reads and writes nothing but the
caches of latents and descriptions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from dermaflux.core.distributed import Processes
from dermaflux.generators.data.arrangement import MicroBatch, Order, TrainingData
from dermaflux.generators.data.batches import Batch, BatchSource, squared_error
from dermaflux.generators.data.latents import LatentSource
from dermaflux.generators.vap.model.uvit import forward_flop
from dermaflux.generators.vap.model.weights import LatentModel
from dermaflux.generators.vap.settings import Finetune
from dermaflux.generators.vap.training.text_cache import TextSource
from dermaflux.training.prefetch import StepsAhead, moved
from dermaflux.training.protocol import Step
from dermaflux.training.step_log import Work
from dermaflux.training.validation_events import HeldOutLoss


@dataclass(frozen=True)
class DescribedBatch:
    """A batch and its descriptions."""

    batch: Batch
    text: Tensor | None
    """States of tokens (B, T, D), float16; None for a model without text."""


class Descriptions:
    """Finds what the text tower says of an image's description."""

    def __init__(self, data: TrainingData, text: TextSource | None) -> None:
        self._text = text
        samples = [*data.samples, *data.held_out]
        self._captions = {sample.image_id: sample.caption for sample in samples}

    def of(self, batch: Batch) -> DescribedBatch:
        """With the states of each description, or of the empty one where it is dropped."""
        if self._text is None:
            return DescribedBatch(batch, None)
        pairs = zip(batch.image_ids, batch.dropped, strict=True)
        prompts = ["" if dropped else self._captions[name] for name, dropped in pairs]
        return DescribedBatch(batch, moved(self._text(prompts), batch.latents.device))


class Objective:
    """What `fit` asks for: losses of a step, and its work."""

    def __init__(
        self,
        model: LatentModel,
        data: TrainingData,
        order: Order,
        latents: LatentSource,
        text: TextSource | None,
        settings: Finetune,
        seed: int,
        steps: int,
        processes: Processes,
    ) -> None:
        self._model, self._order, self._settings = model, order, settings
        self._seed, self._processes = seed, processes
        path = model.description.path
        self._source = BatchSource(data, latents, model.standardise, path, processes.device)
        self._descriptions = Descriptions(data, text)
        self._ahead = StepsAhead(self._prepared, self._share, steps)
        # Backward passes cost twice the forward one.
        self._flop = 3 * settings.batch * forward_flop(model.description.shape)

    def weights(self) -> Mapping[str, nn.Parameter]:
        """All weights of the U-ViT by name."""
        return dict(self._model.uvit.named_parameters())

    def parts(self, step: int) -> Iterator[Step]:
        """This process's micro-batches of an optimiser step, counted from 0."""
        ahead = self._ahead.at(step)
        for _ in range(self._settings.micro_batches // self._processes.world):
            described = next(ahead)
            loss, terms = self.loss(described)
            yield Step(loss, described.batch.image_ids, ahead.waited, terms)

    def close(self) -> None:
        """Drop what was prepared for later steps."""
        self._ahead.close()

    def work(self, step: int) -> Work:
        """Images and FLOP of an optimiser step, over all processes."""
        return Work(images=self._settings.batch, flop=self._flop)

    def loss(self, described: DescribedBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The micro-batch's share of the step's loss, a scalar, and of its two terms."""
        settings, shape = self._settings, self._model.description.shape
        reconstruct = shape.prototypes > 0
        errors, reconstruction = _errors(self._model, described, described.batch.times, reconstruct)
        diffusion = errors.sum() / settings.batch
        if reconstruction is None:
            return diffusion, {}
        term = reconstruction.sum() / settings.batch
        terms = {"diffusion_loss": diffusion.detach(), "reconstruction_loss": term.detach()}
        return diffusion + settings.alpha * term, terms

    def _share(self, step: int) -> list[MicroBatch]:
        return self._order.share(step, self._processes.rank, self._processes.world)

    def _prepared(self, micro: MicroBatch) -> DescribedBatch:
        batch = self._source.training(micro, self._seed, self._settings.label_drop)
        return self._descriptions.of(batch)


def _errors(
    model: LatentModel, described: DescribedBatch, times: Tensor, reconstruct: bool
) -> tuple[Tensor, Tensor | None]:
    """Error of the prediction and of the reconstruction of each image, each (B,)."""
    batch, path = described.batch, model.description.path
    text = None if described.text is None else described.text.float()
    point = path.add_noise(batch.latents, batch.noise, times)
    output, reconstruction = model.uvit(point, times, batch.classes, text, reconstruct)
    target = path.target(batch.latents, batch.noise, times)
    return squared_error(output.float(), target), reconstruction


def held_out_loss(
    model: LatentModel,
    data: TrainingData,
    latents: LatentSource,
    text: TextSource | None,
    settings: Finetune,
    processes: Processes,
) -> HeldOutLoss[MicroBatch, DescribedBatch]:
    """The diffusion term on `data.held_out`, with classes and descriptions shown."""
    path, descriptions = model.description.path, Descriptions(data, text)
    source = BatchSource(data, latents, model.standardise, path, processes.device)
    batches = source.held_out_batches(settings.batch // settings.micro_batches)

    def prepared(batch: MicroBatch) -> DescribedBatch:
        return descriptions.of(source.held_out(batch))

    def errors(described: DescribedBatch, fractions: Tensor) -> Tensor:
        times = path.times(fractions).to(described.batch.latents.device)
        return _errors(model, described, times, reconstruct=False)[0]

    scales: Sequence[int] = [sample.scale for sample in data.held_out]
    return HeldOutLoss(scales, batches, prepared, errors, processes)
