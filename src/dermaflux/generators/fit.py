"""The one training loop of this room: AdamW, warm-up and cosine, gradient clip, exact resume.

Randomness is a function of (seed, purpose, step), so the step number is the whole random state and
a resumed loop draws what an unbroken one would have drawn. Reads and writes its checkpoint only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dermaflux.errors import InputError
from dermaflux.progress import progress
from dermaflux.schedule import rate
from dermaflux.tracking import Log

if TYPE_CHECKING:
    from dermaflux.checkpoints import Checkpoint


@dataclass(frozen=True)
class Settings:
    """How `fit` optimises."""

    steps: int
    learning_rate: float
    warmup_steps: int
    maximum_gradient_norm: float
    checkpoint_steps: int
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)


@dataclass(frozen=True)
class Step:
    """What the loss function of one step returns."""

    loss: Tensor
    """Scalar with gradient."""
    image_ids: Sequence[str]
    """Images of the batch, for counts and messages."""


def fit(
    name: str,
    weights: Mapping[str, nn.Parameter],
    settings: Settings,
    step_of: Callable[[int], Step],
    saved: Checkpoint,
    log: Log,
    after: Callable[[int], None] = lambda step: None,
) -> list[dict[str, float]]:
    """Train `weights` in place from the checkpoint or the start; return one row per step.

    `after(step)` runs when `step` steps are done. Rows hold step, loss and learning rate. Raises
    `InputError` naming the images of the batch when the loss is not finite.
    """
    optimiser = torch.optim.AdamW(
        list(weights.values()),
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
    )
    curve: list[dict[str, float]] = []
    state = saved.load()
    if state is not None and state["phase"] == name:
        with torch.no_grad():
            for key, parameter in weights.items():
                parameter.copy_(state["weights"][key])
        optimiser.load_state_dict(state["optimiser"])
        curve = state["curve"]
    with progress(name, settings.steps, len(curve)) as advance:
        for step in range(len(curve), settings.steps):
            started = time.perf_counter()
            current = settings.learning_rate * rate(step, settings.steps, settings.warmup_steps)
            done = step_of(step)
            value = _finite(done, step, name)
            _update(optimiser, weights, done.loss, current, settings.maximum_gradient_norm)
            curve.append({"step": step + 1, "loss": value, "learning_rate": current})
            speed = len(done.image_ids) / (time.perf_counter() - started)
            log.metrics(
                {"loss": value, "learning_rate": current, "images_per_second": speed}, step + 1
            )
            if (step + 1) % settings.checkpoint_steps == 0 or step + 1 == settings.steps:
                saved.save(_state(name, weights, optimiser, curve))
            after(step + 1)
            advance(1, f"loss {value:.4f}, {speed:.1f} images/s")
    return curve


def _finite(done: Step, step: int, name: str) -> float:
    value = float(done.loss.detach())
    if not math.isfinite(value):
        raise InputError(
            f"{name}: the loss of step {step + 1} is {value} on images "
            f"{', '.join(done.image_ids)}; look at them, or lower the learning rate"
        )
    return value


def _update(
    optimiser: torch.optim.AdamW,
    weights: Mapping[str, nn.Parameter],
    loss: Tensor,
    learning_rate: float,
    maximum_norm: float,
) -> None:
    for group in optimiser.param_groups:
        group["lr"] = learning_rate
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(list(weights.values()), maximum_norm)
    optimiser.step()


def _state(
    name: str,
    weights: Mapping[str, nn.Parameter],
    optimiser: torch.optim.AdamW,
    curve: list[dict[str, float]],
) -> dict[str, Any]:
    return {
        "phase": name,
        "weights": {key: parameter.detach().cpu() for key, parameter in weights.items()},
        "optimiser": optimiser.state_dict(),
        "curve": curve,
    }
