"""The training loop of all generators: AdamW, warm-up and cosine, gradient clip, exact resume.

Randomness is a function of (seed, purpose, step, image), learning rate and order of images are
functions of the step, so the number of steps done is the whole position of a run: a resumed loop
draws what an unbroken one would have drawn, with any number of processes. A checkpoint holds that
number, the trained weights, the optimiser and the moving average, never frozen weights; the curves
lie beside it. Reads and writes its checkpoint only.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dermaflux.core.distributed import SINGLE, Processes, agreed
from dermaflux.errors import InputError
from dermaflux.progress import progress
from dermaflux.tracking.runs import Log
from dermaflux.training.curves import Curves
from dermaflux.training.freed_memory import retain_freed_memory
from dermaflux.training.protocol import Objective, Step
from dermaflux.training.schedule import lr_scale
from dermaflux.training.state import Settings, TrainingState
from dermaflux.training.step_log import StepLog

if TYPE_CHECKING:
    from dermaflux.core.checkpoints import Checkpoint


@dataclass(frozen=True)
class Event:
    """Called now and then with the weights that will be kept: the average where there is one."""

    every: int
    """Steps from one call to the next; the last step always has one."""
    run: Callable[[int], Mapping[str, float]]
    """Called in every process with the steps done; what it returns is logged and kept."""
    at_start: bool = False
    """Also before the first step."""

    def due(self, done: int, steps: int) -> bool:
        """Whether it is called after `done` of `steps` steps."""
        return self.at_start if done == 0 else done == steps or done % self.every == 0


def fit(
    name: str,
    objective: Objective,
    settings: Settings,
    saved: Checkpoint,
    log: Log,
    events: Sequence[Event] = (),
    processes: Processes = SINGLE,
    peak_flops: float | None = None,
) -> Curves:
    """Train the objective's weights from the checkpoint or the start; the average is left in them.

    `peak_flops` is the measured FLOP/s of all devices together, for MFU. Raises `InputError` naming
    the images when a loss is not finite, in all processes alike.
    """
    weights = objective.weights()
    device = next(iter(weights.values())).device
    if device.type == "cpu":
        retain_freed_memory()
    state = TrainingState(name, weights, settings, saved, processes.main)
    with contextlib.closing(state):
        state.load()
        if not agreed(processes, [state.step]):
            raise InputError(
                f"{name}: the processes do not find the same checkpoint; put .dermaflux/ on a disk "
                "that all machines share"
            )
        lines = StepLog(
            name, settings.steps, settings.log_steps, log, objective.work, peak_flops, device,
            processes.main,
        )  # fmt: skip
        if state.step == 0:
            _observe(state, events, log)
        with progress(name, settings.steps, state.step) as advance:
            while state.step < settings.steps:
                started = time.perf_counter()
                learning_rate = settings.learning_rate * lr_scale(
                    state.step, settings.steps, settings.warmup_steps
                )
                loss, terms, norm, waited = _gradients(state, objective, device, processes)
                state.update(learning_rate)
                row = {"step": state.step, "loss": loss, **terms, "learning_rate": learning_rate}
                state.append("training", row)
                seconds = time.perf_counter() - started
                lines.step(state.step, loss, learning_rate, norm, seconds, waited, terms)
                _observe(state, events, log)
                last = state.step == settings.steps
                if processes.main and (last or state.step % settings.checkpoint_steps == 0):
                    state.save()
                advance(1, f"loss {loss:.4f}")
        if state.average is not None:
            state.average.leave_in_model()
        return state.curves()


def _gradients(
    state: TrainingState, objective: Objective, device: torch.device, processes: Processes
) -> tuple[float, dict[str, float], float, float]:
    """Fill the gradients with those of the whole step, and clip them.

    Returns the step's loss and its named terms, the norm of its gradient before the clip, and the
    seconds waited.
    """
    state.optimiser.zero_grad()
    losses: list[Tensor] = []
    terms: dict[str, list[Tensor]] = {}
    image_ids: list[Sequence[str]] = []
    waited = 0.0
    for part in _forward(objective.parts(state.step), device, state.settings.autocast):
        part.loss.backward()  # type: ignore[no-untyped-call]
        losses.append(part.loss.detach())
        for name, value in part.terms.items():
            terms.setdefault(name, []).append(value)
        image_ids.append(part.image_ids)
        waited += part.waited
    shares = processes.collect(torch.stack(losses))
    loss = math.fsum(shares) if all(map(math.isfinite, shares)) else sum(shares)
    if not math.isfinite(loss):
        suspects = [
            ids
            for value, ids in zip(losses, image_ids, strict=True)
            if not math.isfinite(float(value))
        ]
        raise _not_finite(state, "loss", f"is {loss}", suspects, processes)
    weights = list(state.weights.values())
    processes.sum_gradients(weight.grad for weight in weights if weight.grad is not None)
    norm = float(nn.utils.clip_grad_norm_(weights, state.settings.maximum_gradient_norm))
    if not math.isfinite(norm):
        raise _not_finite(state, "gradient", f"has norm {norm}", image_ids, processes)
    shared = {name: processes.collect(torch.stack(values)) for name, values in terms.items()}
    return loss, {name: math.fsum(values) for name, values in shared.items()}, norm, waited


def _forward(
    parts: Iterable[Step], device: torch.device, dtype: torch.dtype | None
) -> Iterator[Step]:
    """The micro-batches, computed under autocast; backward passes run outside, as torch asks."""
    if dtype is None:
        yield from parts
        return
    iterator = iter(parts)
    while True:
        with torch.autocast(device.type, dtype):
            part = next(iterator, None)
        if part is None:
            return
        yield part


def _not_finite(
    state: TrainingState,
    what: str,
    how: str,
    batches: Sequence[Sequence[str]],
    processes: Processes,
) -> InputError:
    """The same error in all processes, so that none waits for one that has stopped."""
    images = [
        image_id
        for rank in processes.gather([list(batch) for batch in batches])
        for batch in rank
        for image_id in batch
    ]
    return InputError(
        f"{state.name}: the {what} of step {state.step + 1} {how} on images {', '.join(images)}; "
        "look at them, or lower the learning rate"
    )


def _observe(state: TrainingState, events: Sequence[Event], log: Log) -> None:
    due = [event for event in events if event.due(state.step, state.settings.steps)]
    if not due:
        return
    values: dict[str, float] = {}
    with state.averaged():
        for event in due:
            values.update(event.run(state.step))
    if values:
        state.append("events", {"step": state.step, **values})
        log.metrics(values, state.step)
