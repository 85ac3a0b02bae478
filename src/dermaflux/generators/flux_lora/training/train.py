"""One fine-tuning of an adapter: objective, held-out loss and grids around the loop `fit`.

Reads nothing; writes the checkpoint and the grid picture.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from dermaflux.core.seeds import derived_seed
from dermaflux.core.vocabulary import CLASSES
from dermaflux.generators.data.images import Sample
from dermaflux.generators.flux_lora.model.pipeline import COMPUTE
from dermaflux.generators.flux_lora.model.prompt_padding import TextSource
from dermaflux.generators.flux_lora.sampling.sample import Sampler, sample, save_grid
from dermaflux.generators.flux_lora.training.data import TrainingData
from dermaflux.generators.flux_lora.training.objective import LatentSource, Objective
from dermaflux.generators.flux_lora.training.validation_loss import Validation
from dermaflux.params import Finetune
from dermaflux.tracking.runs import Log
from dermaflux.training.curves import Curves
from dermaflux.training.distributed import Processes
from dermaflux.training.fit import Event, fit
from dermaflux.training.peak_flops import measured_peak
from dermaflux.training.state import Settings

if TYPE_CHECKING:
    from diffusers import FluxPipeline

    from dermaflux.core.checkpoints import Checkpoint

_GRID_SIDE = 4  # images of each class
_GRID_STEPS = 20


@dataclass(frozen=True)
class Inputs:
    """Everything a training reads: all in memory, or behind a cache."""

    pipe: FluxPipeline
    weights: Mapping[str, nn.Parameter]
    data: TrainingData
    latents: LatentSource
    text: TextSource


def train(
    section: Finetune,
    seed: int,
    inputs: Inputs,
    saved: Checkpoint,
    grid: Path,
    log: Log,
    processes: Processes,
) -> Curves:
    """Train from the checkpoint or the start; what is kept is left in the model.

    Raises `InputError` for a loss that is not finite.
    """
    data, model = inputs.data, inputs.pipe.transformer
    steps = data.steps(section)
    objective = Objective(
        model, inputs.weights, data.samples, data.caption_tokens, data.order, inputs.latents,
        inputs.text, section, seed, steps, processes,
    )  # fmt: skip
    settings = Settings(
        steps=steps,
        learning_rate=section.learning_rate,
        warmup_steps=section.warmup_steps,
        maximum_gradient_norm=section.maximum_gradient_norm,
        checkpoint_steps=section.checkpoint_steps,
        weight_decay=1e-4,
        betas=(0.9, 0.999),
        ema_decay=section.ema_decay,
        log_steps=section.log_steps,
    )
    pictures = _Grid(section, seed, inputs, grid, log, processes)
    events = [pictures.event(), *_validation(section, inputs, processes)]
    if processes.main:
        grid.unlink(missing_ok=True)
    model.train()
    peak = None
    if processes.main:
        peak = processes.world * measured_peak(processes.device, COMPUTE[section.base_dtype])
    with contextlib.closing(objective):
        curves = fit("finetune", objective, settings, saved, log, events, processes, peak)
    model.eval()
    # A run that was killed after its last step has everything but the picture.
    if any(processes.gather(processes.main and not grid.exists())):
        pictures.draw(steps)
    return curves


def _validation(section: Finetune, inputs: Inputs, processes: Processes) -> list[Event]:
    data = inputs.data
    if not data.held_out:
        return []
    validation = Validation(
        inputs.pipe.transformer, data.held_out, data.held_out_buckets, section.batch_tokens,
        inputs.latents, inputs.text, section.guidance, processes,
    )  # fmt: skip

    def measure(step: int) -> dict[str, float]:
        found = validation.loss()
        if processes.main:
            print(
                f"finetune {step:,}: validation loss {found['validation_loss']:.4f} on "
                f"{len(data.held_out):,} held-out images",
                flush=True,
            )
        return found

    return [Event(section.validation_steps, measure, at_start=True)]


class _Grid:
    """Images of the same prompts and seeds, so that grids of different steps can be compared."""

    def __init__(
        self,
        section: Finetune,
        seed: int,
        inputs: Inputs,
        path: Path,
        log: Log,
        processes: Processes,
    ) -> None:
        self._section, self._inputs, self._path, self._log = section, inputs, path, log
        self._processes = processes
        self._prompts, scale = _prompts(inputs.data.samples)
        self._seeds = [derived_seed(seed, "grid", index) for index in range(len(self._prompts))]
        self._sampler = Sampler(_GRID_STEPS, section.guidance, scale, section.text_policy)

    def event(self) -> Event:
        return Event(self._section.grid_steps, self.draw)

    def draw(self, step: int) -> Mapping[str, float]:
        """Sample and write the grid; of a sharded base, every process holds a part."""
        if not (self._processes.main or self._processes.sharded):
            return {}
        pipe = self._inputs.pipe
        training = pipe.transformer.training
        pipe.transformer.eval()
        pictures = sample(pipe, self._sampler, self._prompts, self._seeds, self._inputs.text)
        pipe.transformer.train(training)
        if self._processes.main:
            save_grid(pictures, _GRID_SIDE, self._path)
            named = self._path.with_name(f"step-{step:06d}.png")
            self._path.rename(named)
            self._log.artifact(named, "grids")
            named.rename(self._path)
        return {}


def _prompts(samples: list[Sample]) -> tuple[list[str], int]:
    """The first captions of each class, and the smallest training scale."""
    prompts = [
        caption
        for label in CLASSES
        for caption in [one.caption for one in samples if one.label == label][:_GRID_SIDE]
    ]
    return prompts, min(one.scale for one in samples)
