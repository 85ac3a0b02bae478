"""What a user sees of a training loop: one line every few steps, on screen and in the log.

Reads and writes nothing but that line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import torch

from dermaflux.tracking.runs import Log


@dataclass(frozen=True)
class Work:
    """What one optimiser step costs, over all processes; 0 is not counted."""

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


def memory_gib(device: torch.device) -> float:
    """Largest memory so far in GiB: allocated on a GPU, resident in this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


class StepLog:
    """Collects steps and reports their mean every `every` steps and at the end.

    `work` gives what a step, counted from 0, costs over all processes, or None; `peak_flops` is the
    measured FLOP/s of all devices together; only the `main` process counts work and prints.
    """

    def __init__(
        self,
        name: str,
        steps: int,
        every: int,
        log: Log,
        work: Callable[[int], Work | None],
        peak_flops: float | None,
        device: torch.device,
        main: bool = True,
    ) -> None:
        self._name, self._steps, self._every, self._log = name, steps, every, log
        self._work_of, self._peak, self._device, self._main = work, peak_flops, device, main
        self._clear()

    def _clear(self) -> None:
        self._losses: list[float] = []
        self._terms: dict[str, list[float]] = {}
        self._work, self._seconds, self._waited = Work(), 0.0, 0.0

    def step(
        self,
        done: int,
        loss: float,
        learning_rate: float,
        norm: float,
        seconds: float,
        waited: float,
        terms: Mapping[str, float] | None = None,
    ) -> None:
        """Add the `done`th step, the first is 1; times in seconds, `terms` are parts of `loss`."""
        self._losses.append(loss)
        for name, value in (terms or {}).items():
            self._terms.setdefault(name, []).append(value)
        self._seconds += seconds
        self._waited += waited
        if self._main:
            self._work += self._work_of(done - 1) or Work()
        if done % self._every and done != self._steps:
            return
        values = {
            "loss": sum(self._losses) / len(self._losses),
            **{name: sum(each) / len(each) for name, each in self._terms.items()},
            "learning_rate": learning_rate,
            "gradient_norm": norm,
            **self._speed(done),
        }
        self._log.metrics(values, done)
        if self._main:
            print(line(self._name, done, self._steps, values), flush=True)
        self._clear()

    def _speed(self, done: int) -> dict[str, float]:
        count, seconds, work = len(self._losses), max(self._seconds, 1e-9), self._work
        values = {
            "steps_per_second": count / seconds,
            "data_wait_ms": 1000 * self._waited / count,
            "memory_peak_gib": memory_gib(self._device),
            "time_left_minutes": (self._steps - done) * seconds / count / 60,
        }
        if work.images:
            values["images_per_second"] = work.images / seconds
        if work.tokens:
            values["tokens_per_second"] = work.tokens / seconds
            values["padding_percent"] = 100 * work.padding_tokens / work.tokens
        if work.flop:
            values["tflop_per_second"] = work.flop / seconds / 1e12
        if work.flop and self._peak is not None:
            values["mfu_percent"] = 100 * work.flop / seconds / self._peak
        return values


_TERM = "_loss"
"""End of the names of parts of the loss."""
_FORMATS = {
    "images_per_second": "{:,.3g} images/s",
    "tokens_per_second": "{:,.0f} tokens/s",
    "padding_percent": "padding {:.1f} %",
    "tflop_per_second": "{:.3g} TFLOP/s",
    "mfu_percent": "MFU {:.1f} %",
    "data_wait_ms": "data wait {:.1f} ms/step",
    "memory_peak_gib": "memory {:.2f} GiB",
}


def line(name: str, done: int, steps: int, values: Mapping[str, float]) -> str:
    """`values` as one line with units; rates that were not counted are left out."""
    parts = [form.format(values[key]) for key, form in _FORMATS.items() if key in values]
    left = _duration(values["time_left_minutes"])
    terms = [
        f"{key.removesuffix(_TERM)} {value:.4f}"
        for key, value in values.items()
        if key.endswith(_TERM)
    ]
    loss = f"loss {values['loss']:.4f}" + (f" ({', '.join(terms)})" if terms else "")
    return ", ".join([f"{name} {done:,}/{steps:,}: {loss}", *parts, f"{left} left"])


def _duration(minutes: float) -> str:
    if minutes < 2:
        return f"{60 * minutes:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
