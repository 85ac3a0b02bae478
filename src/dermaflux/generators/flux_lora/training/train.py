"""Trains the adapter: objective, held-out loss and grids around the loop `fit`.

Reads what its inputs stand for; writes the checkpoint, the grid and the adapter.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from dermaflux.core.arrays import Pixels
from dermaflux.generators.data.latents import LatentSource
from dermaflux.generators.flux_lora.model import lora
from dermaflux.generators.flux_lora.model.pipeline import COMPUTE
from dermaflux.generators.flux_lora.model.prompt_padding import TextSource
from dermaflux.generators.flux_lora.sampling.sample import SamplingSettings, sample
from dermaflux.generators.flux_lora.settings import Finetune, Synthesize
from dermaflux.generators.flux_lora.training import shown
from dermaflux.generators.flux_lora.training.data import TrainingData
from dermaflux.generators.flux_lora.training.held_out import held_out_loss
from dermaflux.generators.flux_lora.training.objective import Objective
from dermaflux.generators.protocol import Condition, Facts, Json, TrainingRun
from dermaflux.training.curves import Curves
from dermaflux.training.fit import fit
from dermaflux.training.peak_flops import measured_peak
from dermaflux.training.state import Settings
from dermaflux.training.validation_events import Grid, generator_events

if TYPE_CHECKING:
    from diffusers import FluxPipeline

    from dermaflux.core.checkpoints import Checkpoint

_GRID_STEPS = 20


@dataclass(frozen=True)
class Inputs:
    """Everything a training reads: all in memory, or behind a cache."""

    pipe: FluxPipeline
    weights: Mapping[str, nn.Parameter]
    data: TrainingData
    latents: LatentSource
    text: TextSource


class LoraTraining:
    """A backbone with a fresh adapter; a `protocol.Training`."""

    def __init__(self, run: TrainingRun, settings: Finetune, inputs: Inputs, backbone: str) -> None:
        self._run, self._settings, self._inputs = run, settings, inputs
        self.identity: Mapping[str, Json] = {"backbone": backbone}

    def fit(self, saved: Checkpoint) -> Curves:
        """Train from the checkpoint or the start; the weights to save are left in the model.

        Raises `InputError` for a loss that is not finite.
        """
        run, settings, inputs = self._run, self._settings, self._inputs
        data, model, processes = inputs.data, inputs.pipe.transformer, run.processes
        steps = data.steps(settings)
        objective = Objective(
            model, inputs.weights, data.samples, data.caption_tokens, data.order, inputs.latents,
            inputs.text, settings, run.seed, steps, processes,
        )  # fmt: skip
        pool = None if run.synthesize is None else self._sample_pool
        grid = Grid(self._sample_grid, shown.EACH, run.grid, run.log, processes, pool)
        loss = None
        if data.held_out:
            loss = held_out_loss(model, data, inputs.latents, inputs.text, settings, processes)
        every = run.section.validation_steps
        events = generator_events(grid, run.runtime.grid_steps, loss, every)
        model.train()
        peak = None
        if processes.main:
            peak = processes.world * measured_peak(processes.device, COMPUTE[settings.base_dtype])
        optimisation = Settings.of(settings, run.runtime, steps, 1e-4, (0.9, 0.999))
        with contextlib.closing(objective):
            curves = fit(
                "finetune", objective, optimisation, saved, run.log, events,
                processes, peak,
            )  # fmt: skip
        model.eval()
        grid.complete(steps)
        return curves

    def _sample_grid(self) -> Pixels:
        """What the adapter learns from, in fixed noise."""
        conditions = shown.of_training(self._inputs.data.samples, self._run.seed)
        return self._sample(_GRID_STEPS, self._settings.guidance, conditions)

    def _sample_pool(self) -> Pixels:
        """What the stage `synthesize` will be asked for, in fixed noise."""
        synthesize = self._run.synthesize
        assert synthesize is not None
        sampling = synthesize.settings("flux_lora")
        assert isinstance(sampling, Synthesize)
        conditions = shown.of_pool(self._inputs.data.samples, synthesize, self._run.seed)
        return self._sample(sampling.steps, sampling.guidance, conditions)

    def _sample(self, steps: int, guidance: float, conditions: list[Condition]) -> Pixels:
        model = self._inputs.pipe.transformer
        training = model.training
        model.eval()
        settings = SamplingSettings(steps, guidance, self._settings.prompt_padding)
        images = sample(self._inputs.pipe, settings, conditions, self._inputs.text)
        model.train(training)
        return images

    def save(self, folder: Path) -> Facts:
        """Write the adapter in diffusers' names; return what sampling and report must know."""
        facts = self._facts()
        lora.save(self._inputs.pipe.transformer, folder, facts)
        return {**facts, "summary": _summary(facts), **self.identity}

    def _facts(self) -> Facts:
        settings, data = self._settings, self._inputs.data
        tokens = data.lengths()
        return {
            "targets": settings.targets,
            "rank": settings.rank,
            "alpha": settings.alpha,
            "trainable_parameters": sum(w.numel() for w in self._inputs.weights.values()),
            "prompt_padding": settings.prompt_padding,
            "captions_cut": tokens["cut"],
            "captions_cut_by_clip": len(data.clip.cut),
            "captions_without_class_for_clip": len(data.clip.class_lost),
            "longest_caption_tokens": tokens["longest"],
            "caption_tokens": tokens,
            "guidance": settings.guidance,
            "timestep_density": settings.timestep_density,
            "base_dtype": settings.base_dtype,
            "ema_decay": settings.ema_decay,
            "batch_tokens": settings.batch_tokens,
            "micro_batches": settings.micro_batches,
            "buckets": len(data.order.shapes),
            "padding_percent": round(data.padding_percent(), 3),
            "learning_rate": settings.learning_rate,
        }


def _summary(facts: Facts) -> str:
    return (
        f"LoRA of rank {facts['rank']} on {facts['targets']} layers, "
        f"{facts['trainable_parameters']:,} trainable parameters, base in {facts['base_dtype']}. "
        f"Prompt padding {facts['prompt_padding']}: {facts['buckets']} buckets of scale and "
        f"caption length, {facts['padding_percent']:.1f} % of all tokens are padding. "
        f"{facts['captions_cut_by_clip']:,} captions are longer than CLIP reads."
    )
