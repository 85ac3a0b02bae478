"""How fast this machine trains a classifier, measured for some seconds on random images."""

from __future__ import annotations

import time
from collections.abc import Callable

from dermaflux.params import Params

_SECONDS = 4.0  # of training; half as long for scoring
_MEASURED = 3  # steps at least, after the first


def rates(params: Params, architecture: str) -> tuple[float, float]:
    """Images per second, trained on and only scored, at the run's image size and batch.

    The network has random weights; decoding, augmentation and `compile` are left out. Raises
    `InputError` when timm has no such model or refuses its options.
    """
    import torch

    from dermaflux.classifiers import supervised

    settings = params.train
    where = supervised.device()
    config = supervised.configure(settings.models[architecture], settings.image_size)
    network = supervised.build(config).to(where).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6)
    side = settings.image_size
    images = torch.rand(settings.batch, 3, side, side, device=where)
    images = images.contiguous(memory_format=torch.channels_last)
    halved = torch.autocast(where.type, torch.bfloat16, enabled=settings.precision == "bf16")

    def train() -> None:
        with halved:
            loss = network(images).float().square().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def score() -> None:
        with torch.inference_mode(), halved:
            network(images)

    network.train()
    trained = _per_second(train, _SECONDS, where.type)
    network.eval()
    return trained * settings.batch, _per_second(score, _SECONDS / 2, where.type) * settings.batch


def _per_second(step: Callable[[], None], seconds: float, device: str) -> float:
    import torch

    def finished() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    step()  # the first one chooses kernels and fills the memory
    began = finished()
    done = 0
    while True:
        step()
        done += 1
        took = finished() - began
        if took >= seconds and done >= _MEASURED:
            return done / took
        if took >= 2 * seconds:
            return done / took
