"""What a user sees of a training loop: one line every few steps, on screen and in the log.

Reads and writes nothing but that line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch

from dermaflux.tracking.runs import Log


@dataclass(frozen=True)
class Work:
    """What one optimiser step does, over all processes."""

    images: int = 0
    """Without fillers."""
    tokens: int = 0
    """Image and text tokens that go through the model, padding included."""
    padding_tokens: int = 0
    """Of these, text beyond a caption's end and everything of fillers."""
    flop: float = 0.0
    """Of the model; recomputed blocks are not counted, as usual for MFU."""

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Work)))


@dataclass(frozen=True)
class Meter:
    """How a loop's work is counted."""

    work: Callable[[int], Work]
    """Work of an optimiser step, counted from 0."""
    peak: float
    """Measured FLOP/s of all devices together."""


def memory_gib(device: torch.device) -> float:
    """Largest memory so far in GiB: allocated on a GPU, resident in this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


class StepLog:
    """Collects steps and reports their mean every `every` steps and at the end."""

    def __init__(
        self, name: str, steps: int, every: int, log: Log, meter: Meter | None, device: torch.device
    ) -> None:
        self._name, self._steps, self._every, self._log = name, steps, every, log
        self._meter, self._device = meter, device
        self._losses: list[float] = []
        self._work, self._seconds, self._waited = Work(), 0.0, 0.0

    def step(
        self, done: int, loss: float, rate: float, norm: float, seconds: float, waited: float
    ) -> None:
        """Take in one step, the `done`th; times in seconds."""
        self._losses.append(loss)
        self._seconds += seconds
        self._waited += waited
        if self._meter is not None:
            self._work += self._meter.work(done - 1)
        if done % self._every and done != self._steps:
            return
        values = {
            "loss": sum(self._losses) / len(self._losses),
            "learning_rate": rate,
            "gradient_norm": norm,
            **self._speed(done),
        }
        self._log.metrics(values, done)
        if self._meter is not None:
            print(line(self._name, done, self._steps, values), flush=True)
        self._losses, self._work, self._seconds, self._waited = [], Work(), 0.0, 0.0

    def _speed(self, done: int) -> dict[str, float]:
        count, seconds = len(self._losses), max(self._seconds, 1e-9)
        left = (self._steps - done) * seconds / count
        values = {
            "steps_per_second": count / seconds,
            "data_wait_ms": 1000 * self._waited / count,
            "memory_peak_gib": memory_gib(self._device),
            "time_left_minutes": left / 60,
        }
        if self._meter is None:
            return values
        work = self._work
        return {
            **values,
            "images_per_second": work.images / seconds,
            "tokens_per_second": work.tokens / seconds,
            "padding_percent": 100 * work.padding_tokens / work.tokens,
            "tflop_per_second": work.flop / seconds / 1e12,
            "mfu_percent": 100 * work.flop / seconds / self._meter.peak,
        }


def line(name: str, done: int, steps: int, values: dict[str, float]) -> str:
    """`values` as one line with units."""
    memory, left = values["memory_peak_gib"], values["time_left_minutes"]
    return (
        f"{name} {done:,}/{steps:,}: loss {values['loss']:.4f}, "
        f"{values['images_per_second']:,.3g} images/s, "
        f"{values['tokens_per_second']:,.0f} tokens/s, "
        f"padding {values['padding_percent']:.1f} %, {values['tflop_per_second']:.3g} TFLOP/s, "
        f"MFU {values['mfu_percent']:.1f} %, data wait {values['data_wait_ms']:.1f} ms/step, "
        f"memory {memory:.2f} GiB, {_duration(left)} left"
    )


def _duration(minutes: float) -> str:
    if minutes < 2:
        return f"{60 * minutes:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
