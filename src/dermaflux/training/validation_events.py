"""What is measured and shown while a generator trains: held-out loss, and a grid of images.

The held-out loss can be compared from step to step and from run to run: every image keeps its own
latent and noise, and is measured at the same eight times, MLPerf's rule for FLUX
(mlcommons/training, text_to_image), which takes the variance of noise and times out of the figure.
Writes the grid's PNG and nothing else.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from dermaflux.core.arrays import Pixels
from dermaflux.core.distributed import Processes
from dermaflux.tracking.runs import Log
from dermaflux.training.fit import Event

TIMES = tuple((index + 0.5) / 8 for index in range(8))
"""The times of every image: the middles of eight equal parts of (0, 1), 1 being noise."""


class HeldOutBatch(Protocol):
    """Held-out images that go through the model together."""

    @property
    def members(self) -> tuple[int, ...]:
        """Indices of the images; those from `real` on repeat others and are not counted."""
        ...

    @property
    def real(self) -> int:
        """Images that are counted."""
        ...


B = TypeVar("B", bound=HeldOutBatch)
P = TypeVar("P")


class HeldOutLoss(Generic[B, P]):
    """The loss of a model on a fixed set of images.

    `prepare` gives what the model takes of a batch, with the latents and the noise that belong to
    its images; `errors` gives the error (B,) of each image at the times (B,).
    """

    def __init__(
        self,
        scales: Sequence[int],
        batches: Sequence[B],
        prepare: Callable[[B], P],
        errors: Callable[[P, Tensor], Tensor],
        processes: Processes,
    ) -> None:
        self._scales, self._batches, self._processes = scales, batches, processes
        self._prepare, self._errors = prepare, errors
        self.images, self.main = len(scales), processes.main

    def __call__(self) -> dict[str, float]:
        """`validation_loss`, and the same per scale as `validation_loss_128` and so on.

        The mean over images and times. Processes share the images and all return the same numbers.
        """
        return _means(self._scales, self._sums())

    def by_image(self) -> list[float]:
        """The mean over the times of each image, in their order."""
        sums = self._sums()
        return [sums[index] / len(TIMES) for index in range(self.images)]

    def _sums(self) -> dict[int, float]:
        """Sum of each image's errors over the times, by its index, of all processes."""
        processes = self._processes
        errors: dict[int, float] = {}
        rounds = -(-len(self._batches) // processes.world)
        with torch.no_grad():
            for turn in range(rounds):
                # A sharded base needs every process in every forward pass: the last turn repeats.
                index = min(turn * processes.world + processes.rank, len(self._batches) - 1)
                errors.update(self._batch(self._batches[index]))
        return {index: error for part in processes.gather(errors) for index, error in part.items()}

    def _batch(self, batch: B) -> dict[int, float]:
        """Sum of each image's errors over the times, by its index."""
        prepared, count = self._prepare(batch), len(batch.members)
        total = torch.zeros(count, dtype=torch.float64)
        for time in TIMES:
            total += self._errors(prepared, torch.full((count,), time)).cpu()
        return dict(zip(batch.members[: batch.real], total.tolist(), strict=False))


def _means(scales: Sequence[int], errors: Mapping[int, float]) -> dict[str, float]:
    groups: dict[str, Sequence[int]] = {"validation_loss": range(len(scales))}
    for wanted in sorted(set(scales)):
        members = [index for index, scale in enumerate(scales) if scale == wanted]
        groups[f"validation_loss_{wanted}"] = members
    return {
        name: math.fsum(errors[index] for index in members) / (len(members) * len(TIMES))
        for name, members in groups.items()
    }


def held_out_event(name: str, loss: HeldOutLoss[Any, Any], every: int) -> Event:
    """The held-out loss before the first step, every few steps and after the last, printed."""

    def measure(step: int) -> dict[str, float]:
        values = loss()
        if loss.main:
            print(
                f"{name} {step:,}: validation loss {values['validation_loss']:.4f} on "
                f"{loss.images:,} held-out images",
                flush=True,
            )
        return values

    return Event(every, measure, at_start=True)


class Grid:
    """Images of the same conditions at different steps, so that they can be compared.

    `sample` gives uint8 (N, H, W, 3). It is called in the main process, or in all of them where
    each holds a part of the model. So is `pool`, which gives images as they will be sampled later;
    they are logged, and kept nowhere else.
    """

    def __init__(
        self,
        sample: Callable[[], Pixels],
        columns: int,
        path: Path,
        log: Log,
        processes: Processes,
        pool: Callable[[], Pixels] | None = None,
    ) -> None:
        self._sample, self._columns, self._path = sample, columns, path
        self._pool = pool
        self._log, self._processes = log, processes
        if processes.main:
            path.unlink(missing_ok=True)

    def draw(self, step: int) -> Mapping[str, float]:
        """Sample, write the PNG and log it under the step's number; measures nothing."""
        if not (self._processes.main or self._processes.sharded):
            return {}
        images = self._sample()
        pool = None if self._pool is None else self._pool()
        if self._processes.main and pool is not None:
            with tempfile.TemporaryDirectory() as folder:
                sheet = Path(folder) / f"pool-{step:06d}.png"
                save_grid(pool, self._columns, sheet)
                self._log.artifact(sheet, "grids")
        if self._processes.main:
            save_grid(images, self._columns, self._path)
            named = self._path.with_name(f"step-{step:06d}.png")
            self._path.rename(named)
            self._log.artifact(named, "grids")
            named.rename(self._path)
        return {}

    def complete(self, step: int) -> None:
        """Draw it if it is missing: a run killed after its last step has everything else."""
        processes = self._processes
        if any(processes.gather(processes.main and not self._path.exists())):
            self.draw(step)


def generator_events(
    grid: Grid, grid_steps: int, loss: HeldOutLoss[Any, Any] | None, every: int
) -> list[Event]:
    """The grid, and the held-out loss where there is one, as `fit` takes them."""
    events = [Event(grid_steps, grid.draw)]
    return events if loss is None else [*events, held_out_event("finetune", loss, every)]


def save_grid(images: Pixels, columns: int, path: Path) -> None:
    """Write images, uint8 (N, H, W, 3), as one PNG with two pixels of white between them."""
    from PIL import Image

    count, height, width, _ = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + 2) - 2, columns * (width + 2) - 2, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + 2), (index % columns) * (width + 2)
        sheet[top : top + height, left : left + width] = image
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path)
