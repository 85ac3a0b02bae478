"""The held-out loss of a FLUX transformer: which batches, and the error of an image at a time.

The times are not shifted, so images of all sizes are measured alike. Reads and writes nothing but
the caches its sources stand for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dermaflux.core.distributed import Processes
from dermaflux.core.seeds import generator
from dermaflux.generators.flux_lora.model.loss import flow_matching_loss
from dermaflux.generators.flux_lora.model.prompt_padding import Text, TextSource
from dermaflux.generators.flux_lora.training.buckets import MicroBatch, Order
from dermaflux.training.prefetch import moved
from dermaflux.training.validation_events import HeldOutLoss

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

    from dermaflux.generators.data.latents import LatentSource
    from dermaflux.generators.flux_lora.settings import Finetune
    from dermaflux.generators.flux_lora.training.data import TrainingData


@dataclass(frozen=True)
class HeldOutInputs:
    """What a batch of held-out images puts into the model at every time."""

    latents: Tensor
    noise: Tensor
    text: Text


def held_out_loss(
    model: FluxTransformer2DModel,
    data: TrainingData,
    latents: LatentSource,
    text: TextSource,
    settings: Finetune,
    processes: Processes,
) -> HeldOutLoss[MicroBatch, HeldOutInputs]:
    """The loss on `data.held_out` in batches of up to `batch_tokens`."""
    order = Order(data.held_out_buckets, settings.batch_tokens, 1, 0)
    batches = [order.at(step)[0] for step in range(order.steps(1))]

    def prepare(batch: MicroBatch) -> HeldOutInputs:
        samples = [data.held_out[index] for index in batch.members]
        generators = [generator("validation", sample.image_id) for sample in samples]
        clean = latents.draw(samples, generators)
        noise = torch.stack([torch.randn(clean.shape[1:], generator=g) for g in generators])
        encoded = text([sample.caption for sample in samples], batch.bucket.text_tokens)
        device = processes.device
        return HeldOutInputs(moved(clean, device), moved(noise, device), encoded)

    def errors(inputs: HeldOutInputs, times: Tensor) -> Tensor:
        return flow_matching_loss(
            model, inputs.latents, inputs.noise, times, inputs.text, settings.guidance
        )

    scales = [sample.scale for sample in data.held_out]
    return HeldOutLoss(scales, batches, prepare, errors, processes)
