"""How fast this machine trains a classifier, measured for a few seconds on random images."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dermaflux.core.devices import automatic_device
from dermaflux.params import Params

if TYPE_CHECKING:
    from torch import Tensor

_SECONDS = 3.0
"""Of training; scoring is measured for half as long."""
_STEPS = 3
"""Measured at least. A slow machine uses smaller batches than the run's to keep to the time."""


def rates(params: Params, architecture: str) -> tuple[float, float]:
    """Images per second in training and in scoring, at the run's image size and batch.

    The network has random weights; decoding, augmentation and `compile` are excluded. Raises
    `InputError` when timm has no such model or refuses its options.
    """
    import torch

    from dermaflux.classifiers.model import network as supervised

    settings = params.training(architecture)
    device = automatic_device()
    config = supervised.configure(settings.models[architecture], settings.image_size)
    network = supervised.build(config).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6)
    side = settings.image_size
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16")

    def train(images: Tensor) -> None:
        with autocast:
            loss = network(images).float().square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def score(images: Tensor) -> None:
        with torch.inference_mode(), autocast:
            network(images)

    pixels = torch.rand(settings.batch, 3, side, side, device=device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    network.train()
    trained = images_per_second(train, pixels, _SECONDS)
    network.eval()
    return trained, images_per_second(score, pixels, _SECONDS / 2)


def images_per_second(step: Callable[[Tensor], None], images: Tensor, seconds: float) -> float:
    """Images per second of `step` on a batch that fits into `seconds` `_STEPS` times.

    The batch is `images` or its first part. At least `_STEPS` calls are measured, however long they
    take, and no warm-up calls.
    """
    import torch

    def now() -> float:
        if images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    few = images[:2]
    step(few)  # warm-up: selects kernels and allocates memory
    start = now()
    step(few)
    affordable = int(len(few) * seconds / _STEPS / (now() - start))
    batch = images[: max(len(few), affordable)]
    step(batch)
    start, steps = now(), 0
    while steps < _STEPS or now() - start < seconds:
        step(batch)
        steps += 1
    return steps * len(batch) / (now() - start)
