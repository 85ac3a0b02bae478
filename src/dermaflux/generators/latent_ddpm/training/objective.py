"""The loss of a step, micro-batch by micro-batch, and the held-out loss.

Equation 3 of DerMAE, ||target - output||^2 + lambda L_perc; with lambda 0, `epsilon` and no
weighting it is equation 2. Reads and writes nothing but the cache of latents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from dermaflux.core.distributed import Processes
from dermaflux.generators.data.arrangement import MicroBatch, Order, TrainingData
from dermaflux.generators.data.batches import Batch, BatchSource, squared_error
from dermaflux.generators.data.latents import LatentSource
from dermaflux.generators.latent_ddpm.model.unet import forward_flop
from dermaflux.generators.latent_ddpm.model.weights import LatentModel
from dermaflux.generators.latent_ddpm.settings import Finetune
from dermaflux.generators.latent_ddpm.training.perceptual import PerceptualLoss
from dermaflux.training.prefetch import StepsAhead
from dermaflux.training.protocol import Step
from dermaflux.training.step_log import Work
from dermaflux.training.validation_events import HeldOutLoss


class Objective:
    """What `fit` asks for: losses of a step, and its work."""

    def __init__(
        self,
        model: LatentModel,
        data: TrainingData,
        order: Order,
        latents: LatentSource,
        settings: Finetune,
        seed: int,
        steps: int,
        processes: Processes,
        perceptual: PerceptualLoss | None = None,
    ) -> None:
        self._model, self._order = model, order
        self._source = BatchSource(
            data, latents, model.standardise, model.description.path, processes.device
        )
        self._settings, self._seed, self._processes = settings, seed, processes
        self._perceptual = perceptual
        self._ahead = StepsAhead(self._prepared, self._share, steps)
        # Backward passes cost twice the forward one; the perceptual term is not counted.
        self._flop = 3 * settings.batch * forward_flop(model.description.shape)

    def weights(self) -> Mapping[str, nn.Parameter]:
        """All weights of the U-Net by name."""
        return dict(self._model.unet.named_parameters())

    def parts(self, step: int) -> Iterator[Step]:
        """This process's micro-batches of an optimiser step, counted from 0."""
        ahead = self._ahead.at(step)
        for _ in range(self._settings.micro_batches // self._processes.world):
            batch = next(ahead)
            yield Step(self.loss(batch), batch.image_ids, ahead.waited)

    def close(self) -> None:
        """Drop what was prepared for later steps."""
        self._ahead.close()

    def work(self, step: int) -> Work:
        """Images and FLOP of an optimiser step, over all processes."""
        return Work(images=self._settings.batch, flop=self._flop)

    def loss(self, batch: Batch) -> Tensor:
        """The micro-batch's share of the step's loss, a scalar."""
        settings, path = self._settings, self._model.description.path
        point = path.add_noise(batch.latents, batch.noise, batch.times)
        output = self._model.unet(point, batch.times, class_labels=batch.classes).sample.float()
        errors = squared_error(output, path.target(batch.latents, batch.noise, batch.times))
        loss = (errors * path.weights(batch.times, settings.min_snr_gamma)).sum()
        loss = loss / settings.batch
        if self._perceptual is not None:
            term = self._perceptual_term(batch, point, output)
            loss = loss + settings.perceptual_weight * term / settings.micro_batches
        return loss

    def _perceptual_term(self, batch: Batch, point: Tensor, output: Tensor) -> Tensor:
        """Mean over the first images of a micro-batch; those below the SNR threshold count 0."""
        settings, path = self._settings, self._model.description.path
        count = max(1, round(settings.perceptual_fraction * len(batch.image_ids)))
        times = batch.times[:count]
        chosen = (path.snr(times) >= settings.perceptual_snr).nonzero().flatten()
        if self._perceptual is None or not len(chosen):
            return output.sum() * 0
        clean = path.clean(point[chosen], output[chosen], times[chosen])
        predicted, expected = (
            self._model.restore(latents) for latents in (clean, batch.latents[chosen])
        )
        return self._perceptual(predicted, expected).sum() / count

    def _share(self, step: int) -> list[MicroBatch]:
        return self._order.share(step, self._processes.rank, self._processes.world)

    def _prepared(self, micro: MicroBatch) -> Batch:
        return self._source.training(micro, self._seed, self._settings.label_drop)


def held_out_loss(
    model: LatentModel,
    data: TrainingData,
    latents: LatentSource,
    settings: Finetune,
    processes: Processes,
) -> HeldOutLoss[MicroBatch, Batch]:
    """The unweighted error of equation 2 on `data.held_out`, with the classes shown."""
    path, device = model.description.path, processes.device
    source = BatchSource(data, latents, model.standardise, path, device)
    batches = source.held_out_batches(settings.batch // settings.micro_batches)

    def errors(batch: Batch, fractions: Tensor) -> Tensor:
        times = path.times(fractions).to(batch.latents.device)
        point = path.add_noise(batch.latents, batch.noise, times)
        output = model.unet(point, times, class_labels=batch.classes).sample.float()
        return squared_error(output, path.target(batch.latents, batch.noise, times))

    scales = [sample.scale for sample in data.held_out]
    return HeldOutLoss(scales, batches, source.held_out, errors, processes)
