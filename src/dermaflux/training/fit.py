"""The one training loop of this room: AdamW, warm-up and cosine, gradient clip, exact resume.

Randomness is a function of (seed, purpose, step, image), learning rate and order of images are
functions of the step, so the number of steps done is the whole position of a run: a resumed loop
draws what an unbroken one would have drawn, with any number of processes. A checkpoint holds that
number, the trained weights, the optimiser, the moving average and the curves; never the frozen
base. Reads and writes its checkpoint only.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dermaflux.errors import InputError
from dermaflux.progress import progress
from dermaflux.tracking.runs import Log
from dermaflux.training import freed_memory
from dermaflux.training.distributed import SINGLE, Processes, agreed
from dermaflux.training.ema import MovingAverage
from dermaflux.training.schedule import rate
from dermaflux.training.step_log import Meter, StepLog

if TYPE_CHECKING:
    from dermaflux.core.checkpoints import Checkpoint


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
    ema_decay: float | None = None
    log_steps: int = 20


@dataclass(frozen=True)
class Step:
    """One micro-batch of a step: what is left is added to the gradient."""

    loss: Tensor
    """Scalar with gradient; over all micro-batches and processes these sum to the step's loss."""
    image_ids: Sequence[str]
    """Images of the micro-batch, for messages."""
    waited: float = 0.0
    """Seconds the device stood still for the data."""


@dataclass(frozen=True)
class Event:
    """Something done now and then with the weights that will be kept: the average when it is on."""

    every: int
    """Steps from one to the next; the last step always has one."""
    run: Callable[[int], Mapping[str, float]]
    """Called in every process with the steps done; the numbers it returns are kept and logged."""
    at_start: bool = False


@dataclass
class Curves:
    """What a run has measured, one row per step."""

    training: list[dict[str, float]] = field(default_factory=list)
    """step, loss, learning_rate"""
    events: list[dict[str, float]] = field(default_factory=list)
    """step and what the events of that step returned"""


class _Run:
    """Weights, optimiser, average and curves: everything that a checkpoint holds."""

    def __init__(self, name: str, weights: Mapping[str, nn.Parameter], settings: Settings) -> None:
        self.name, self.weights, self.settings = name, weights, settings
        self.optimiser = torch.optim.AdamW(
            list(weights.values()),
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=next(iter(weights.values())).device.type == "cuda",
        )
        decay = settings.ema_decay
        self.average = MovingAverage(weights, decay) if decay is not None else None
        self.curves = Curves()

    @property
    def done(self) -> int:
        return len(self.curves.training)

    def kept(self) -> contextlib.AbstractContextManager[None]:
        """While it lasts, the model holds the weights that will be kept."""
        return self.average.in_place() if self.average is not None else contextlib.nullcontext()

    def load(self, state: Mapping[str, Any] | None) -> None:
        if state is None or state["phase"] != self.name:
            return
        with torch.no_grad():
            for key, parameter in self.weights.items():
                parameter.copy_(state["weights"][key])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load(state["average"])
        self.curves = Curves(state["curve"], state["events"])

    def state(self) -> dict[str, Any]:
        average = self.average.values if self.average is not None else {}
        return {
            "phase": self.name,
            "step": self.done,
            "weights": {key: parameter.detach().cpu() for key, parameter in self.weights.items()},
            "optimiser": self.optimiser.state_dict(),
            "average": {key: value.cpu() for key, value in average.items()},
            "curve": self.curves.training,
            "events": self.curves.events,
        }

    def update(self, learning_rate: float) -> None:
        """One optimiser step on the gradients at hand."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.step()
        if self.average is not None:
            self.average.update(self.done)


def fit(
    name: str,
    weights: Mapping[str, nn.Parameter],
    settings: Settings,
    step_of: Callable[[int], Iterable[Step]],
    saved: Checkpoint,
    log: Log,
    events: Sequence[Event] = (),
    processes: Processes = SINGLE,
    meter: Meter | None = None,
) -> Curves:
    """Train `weights` in place from the checkpoint or the start; the average is left in them.

    `step_of(step)` yields this process's micro-batches of a step. Raises `InputError` naming the
    images when a loss is not finite, in all processes alike.
    """
    run = _Run(name, weights, settings)
    run.load(saved.load())
    if not agreed(processes, [run.done]):
        raise InputError(
            f"{name}: the processes do not find the same checkpoint; put .dermaflux/ on a disk "
            "that all machines share"
        )
    device = next(iter(weights.values())).device
    if device.type == "cpu":
        freed_memory.keep()
    lines = StepLog(name, settings.steps, settings.log_steps, log, meter, device)
    if run.done == 0:
        _observe(run, events, log)
    with progress(name, settings.steps, run.done) as advance:
        for step in range(run.done, settings.steps):
            started = time.perf_counter()
            learning_rate = settings.learning_rate * rate(
                step, settings.steps, settings.warmup_steps
            )
            value, norm, waited = _gradients(run, step, step_of, processes)
            run.update(learning_rate)
            run.curves.training.append(
                {"step": step + 1, "loss": value, "learning_rate": learning_rate}
            )
            lines.step(step + 1, value, learning_rate, norm, time.perf_counter() - started, waited)
            _observe(run, events, log)
            due = (step + 1) % settings.checkpoint_steps == 0 or step + 1 == settings.steps
            if due and processes.main:
                saved.save(run.state())
            advance(1, f"loss {value:.4f}")
    if run.average is not None:
        run.average.keep()
    return run.curves


def _gradients(
    run: _Run, step: int, step_of: Callable[[int], Iterable[Step]], processes: Processes
) -> tuple[float, float, float]:
    """Fill the gradients with those of the whole step, and clip them.

    Returns the step's loss, the norm of its gradient before the clip, and the seconds waited.
    """
    run.optimiser.zero_grad(set_to_none=True)
    losses: list[Tensor] = []
    names: list[Sequence[str]] = []
    waited = 0.0
    for part in step_of(step):
        part.loss.backward()  # type: ignore[no-untyped-call]
        losses.append(part.loss.detach())
        names.append(part.image_ids)
        waited += part.waited
    found = processes.collect(torch.stack(losses))
    loss = math.fsum(found) if all(map(math.isfinite, found)) else sum(found)
    own = [ids for one, ids in zip(losses, names, strict=True) if not math.isfinite(float(one))]
    if not math.isfinite(loss):
        raise _stopped(run, step, f"loss of step {step + 1} is {loss}", own, processes)
    processes.add_up([p.grad for p in run.weights.values() if p.grad is not None])
    norm = float(
        nn.utils.clip_grad_norm_(list(run.weights.values()), run.settings.maximum_gradient_norm)
    )
    if not math.isfinite(norm):
        raise _stopped(run, step, f"gradient of step {step + 1} has norm {norm}", names, processes)
    return loss, norm, waited


def _stopped(
    run: _Run, step: int, what: str, batches: Sequence[Sequence[str]], processes: Processes
) -> InputError:
    """The same error in all processes, so that none waits for one that has stopped."""
    images = [
        name for ids in processes.gather([*map(list, batches)]) for one in ids for name in one
    ]
    return InputError(
        f"{run.name}: the {what} on images {', '.join(images)}; look at them, or lower the "
        "learning rate"
    )


def _observe(run: _Run, events: Sequence[Event], log: Log) -> None:
    done, last = run.done, run.done == run.settings.steps
    due = [one for one in events if (one.at_start if done == 0 else last or done % one.every == 0)]
    if not due:
        return
    values: dict[str, float] = {}
    with run.kept():
        for event in due:
            values.update(event.run(done))
    if values:
        run.curves.events.append({"step": done, **values})
        log.metrics(values, done)
