"""How fast this machine trains a classifier, measured for some seconds on random images."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dermaflux.core.devices import automatic_device
from dermaflux.params import Params

if TYPE_CHECKING:
    from torch import Tensor

_SECONDS = 3.0  # of training; half as long for scoring
_STEPS = 3  # measured at least, so a slow machine takes smaller batches than the run's


def rates(params: Params, architecture: str) -> tuple[float, float]:
    """Images per second, trained on and only scored, at the run's image size and batch.

    The network has random weights; decoding, augmentation and `compile` are left out. Raises
    `InputError` when timm has no such model or refuses its options.
    """
    import torch

    from dermaflux.classifiers.model import network as supervised

    settings = params.train
    where = automatic_device()
    config = supervised.configure(settings.models[architecture], settings.image_size)
    network = supervised.build(config).to(where).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6)
    side = settings.image_size
    halved = torch.autocast(where.type, torch.bfloat16, enabled=settings.precision == "bf16")

    def train(images: Tensor) -> None:
        with halved:
            loss = network(images).float().square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def score(images: Tensor) -> None:
        with torch.inference_mode(), halved:
            network(images)

    pixels = torch.rand(settings.batch, 3, side, side, device=where)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    network.train()
    trained = _per_second(train, pixels, _SECONDS)
    network.eval()
    return trained, _per_second(score, pixels, _SECONDS / 2)


def _per_second(step: Callable[[Tensor], None], images: Tensor, seconds: float) -> float:
    """Images per second of `step`, on as many of `images` as leave time for some steps."""
    import torch

    def finished() -> float:
        if images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    few = images[:2]
    step(few)  # the first one chooses kernels and fills the memory
    began = finished()
    step(few)
    affordable = int(len(few) * seconds / _STEPS / (finished() - began))
    batch = images[: max(len(few), affordable)]
    step(batch)
    began, done = finished(), 0
    while done < _STEPS or finished() - began < seconds:
        step(batch)
        done += 1
    return done * len(batch) / (finished() - began)
