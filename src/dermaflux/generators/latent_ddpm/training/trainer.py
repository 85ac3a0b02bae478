"""How this generator comes to be: a U-Net trained from random weights on cached latents.

Reads what its inputs stand for; writes the checkpoint, the grid and the weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from dermaflux.core.arrays import Pixels
from dermaflux.core.hashing import rank
from dermaflux.core.seeds import derived_seed
from dermaflux.errors import InputError
from dermaflux.generators.data import autoencoder, standardisation
from dermaflux.generators.data.arrangement import Order, TrainingData, arrange
from dermaflux.generators.data.diffusion import DiffusionPath
from dermaflux.generators.data.latents import Latents, downsampling
from dermaflux.generators.latent_ddpm.model import unet, weights
from dermaflux.generators.latent_ddpm.model.options import GENERATOR
from dermaflux.generators.latent_ddpm.model.weights import Description, LatentModel
from dermaflux.generators.latent_ddpm.sampling.sample import SamplingSettings, images
from dermaflux.generators.latent_ddpm.settings import Finetune
from dermaflux.generators.latent_ddpm.training import perceptual
from dermaflux.generators.latent_ddpm.training.objective import Objective, held_out_loss
from dermaflux.generators.latent_ddpm.training.perceptual import PerceptualLoss
from dermaflux.generators.protocol import Facts, Json, Need, Trainer, TrainingRun
from dermaflux.params.fields import GeneratorSettings
from dermaflux.training.curves import Curves
from dermaflux.training.fit import fit
from dermaflux.training.peak_flops import measured_peak
from dermaflux.training.state import Settings
from dermaflux.training.validation_events import Grid, generator_events

if TYPE_CHECKING:
    from pathlib import Path

    from dermaflux.core.checkpoints import Checkpoint
    from dermaflux.generators.data.images import TrainingImages

_GRID_SIDE = 4  # images of each class
_GRID_STEPS, _GRID_GUIDANCE = 20, 1.5


class LatentDdpmTrainer:
    """The entry `training.trainer` of this generator."""

    needs: frozenset[Need] = frozenset({"backbone"})

    def trains(self, settings: GeneratorSettings) -> bool:
        """Always."""
        return True

    def install(self, run: TrainingRun, folder: Path) -> Facts:
        """Not called, since `trains` is true."""
        raise NotImplementedError("latent_ddpm has no finished weights to install")

    def prepare(self, run: TrainingRun, images: TrainingImages) -> LatentTraining:
        """The U-Net with random weights, or why the parameters do not fit, in one `InputError`."""
        settings, processes = run.settings, run.processes
        assert isinstance(settings, Finetune)
        data = arrange(GENERATOR, settings.scale, settings.condition, images)
        order = Order(
            GENERATOR, len(data.samples), settings.batch, settings.micro_batches, run.seed
        )
        order.share(0, processes.rank, processes.world)
        origin = autoencoder.reference(
            settings.latents, settings.latents_revision, run.backbone, GENERATOR
        )
        vae = autoencoder.load(origin, processes.device)
        shape = _shape(settings, vae, data)
        loss = None
        if settings.perceptual_weight and settings.perceptual_features is not None:
            loss = perceptual.create(settings.perceptual_features, vae, processes.device)
        everything = [*data.samples, *data.held_out]
        latents = Latents(
            vae, run.corpus, everything, processes.rank, processes.world, processes.wait
        )
        description = Description(
            shape, DiffusionPath(settings.prediction, settings.beta_start, settings.beta_end),
            settings.condition, data.classes, settings.scale, settings.latents,
            settings.latents_revision, origin.identity,
        )  # fmt: skip
        model = _model(description, latents, data, run)
        return LatentTraining(run, settings, Inputs(model, vae, data, order, latents, loss))


TRAINER: Trainer = LatentDdpmTrainer()


def _shape(settings: Finetune, vae: Any, data: TrainingData) -> unet.Shape:
    """Raises `InputError` for a side that the autoencoder or the U-Net cannot halve."""
    factor, halvings = downsampling(vae), len(settings.block_out_channels) - 1
    side = settings.scale // factor
    if settings.scale % factor or side % 2**halvings:
        raise InputError(
            f"finetune.latent_ddpm.scale {settings.scale} px gives latents of {side} px, which a "
            f"U-Net of {halvings + 1} levels cannot halve {halvings} times; shorten "
            "finetune.latent_ddpm.block_out_channels or choose another scale or autoencoder"
        )
    return unet.Shape(
        int(vae.config.latent_channels),
        side,
        tuple(settings.block_out_channels),
        settings.layers_per_block,
        settings.attention_levels,
        len(data.classes),
    )


def _model(
    description: Description, latents: Latents, data: TrainingData, run: TrainingRun
) -> LatentModel:
    """The U-Net with random weights on this process's device, with statistics of the latents."""
    device = run.processes.device
    mean, deviation = standardisation.measured(latents, data.samples, description.latents)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(run.seed, "unet"))
        network = unet.build(description.shape)
    network.to(device, memory_format=torch.channels_last)
    return LatentModel(network, description, mean.to(device), deviation.to(device))


@dataclass(frozen=True)
class Inputs:
    """Everything a training reads: all in memory, or behind a cache."""

    model: LatentModel
    vae: Any
    data: TrainingData
    order: Order
    latents: Latents
    perceptual: PerceptualLoss | None


class LatentTraining:
    """A U-Net ready to be trained; a `protocol.Training`."""

    def __init__(self, run: TrainingRun, settings: Finetune, inputs: Inputs) -> None:
        self._run, self._settings, self._inputs = run, settings, inputs
        features = settings.perceptual_features if inputs.perceptual is not None else None
        self.identity: Mapping[str, Json] = {
            "backbone": inputs.model.description.autoencoder,
            "perceptual_features": features and perceptual.identity(features),
            # `finetune` keys its checkpoint by images and labels; these decide classes as well.
            "diagnoses": rank(*(sample.diagnosis for sample in inputs.data.samples)).hex(),
        }

    def fit(self, saved: Checkpoint) -> Curves:
        """Train from the checkpoint or the start; the weights to save are left in the model.

        Raises `InputError` for a loss that is not finite.
        """
        run, settings, inputs = self._run, self._settings, self._inputs
        model, data, processes = inputs.model, inputs.data, run.processes
        steps = settings.steps or inputs.order.steps(settings.epochs)
        objective = Objective(
            model, data, inputs.order, inputs.latents, settings, run.seed, steps, processes,
            inputs.perceptual,
        )  # fmt: skip
        grid = Grid(self._sample_grid, _GRID_SIDE, run.grid, run.log, processes)
        loss = None
        if data.held_out:
            loss = held_out_loss(model, data, inputs.latents, settings, processes)
        every = run.section.validation_steps
        events = generator_events(grid, run.runtime.grid_steps, loss, every)
        betas = (settings.beta_1, settings.beta_2)
        autocast = torch.bfloat16 if settings.precision == "bf16" else None
        optimisation = Settings.of(
            settings, run.runtime, steps, settings.weight_decay, betas, autocast
        )
        peak = None
        if processes.main:
            peak = processes.world * measured_peak(processes.device, autocast or torch.float32)
        with contextlib.closing(objective):
            curves = fit(
                "finetune", objective, optimisation, saved, run.log, events,
                processes, peak,
            )  # fmt: skip
        grid.complete(steps)
        return curves

    def _sample_grid(self) -> Pixels:
        """A row of each class from fixed noise."""
        model, flow = self._inputs.model, self._settings.prediction == "flow"
        sampling = SamplingSettings("euler" if flow else "ddim", _GRID_STEPS, _GRID_GUIDANCE)
        embeddings = range(len(model.description.classes))
        rows = [(n, column) for n in embeddings for column in range(_GRID_SIDE)]
        seeds = [derived_seed(self._run.seed, "grid", *row) for row in rows]
        return images(model, self._inputs.vae, sampling, [n for n, _ in rows], seeds)

    def save(self, folder: Path) -> Facts:
        """Write the weights; return what the report must know."""
        weights.save(self._inputs.model, folder)
        settings, model, data = self._settings, self._inputs.model, self._inputs.data
        unlabelled = sum(data.embedding(s) == len(data.classes) for s in data.samples)
        shape = model.description.shape
        facts: Facts = {
            **settings.model_dump(exclude={"steps", "epochs", "warmup_steps"}),
            "classes": {
                name: sum(data.embedding(sample) == index for sample in data.samples)
                for index, name in enumerate(data.classes)
            },
            "images_without_class": unlabelled,
            "latent_shape": [shape.channels, shape.side, shape.side],
            "trainable_parameters": sum(p.numel() for p in model.unet.parameters()),
            "forward_gflop": round(unet.forward_flop(shape) / 1e9, 3),
            "backbone": model.description.autoencoder,
        }
        return {**facts, "summary": _summary(facts)}


def _summary(facts: Facts) -> str:
    channels, side, _ = facts["latent_shape"]
    perceptual_term = (
        f"perceptual weight {facts['perceptual_weight']:g}"
        if facts["perceptual_weight"]
        else "no perceptual term"
    )
    return (
        f"Latent diffusion of {facts['trainable_parameters']:,} parameters, "
        f"{facts['forward_gflop']:.3g} GFLOP an image and pass, on {channels}x{side}x{side} "
        f"latents of {facts['scale']} px images. It predicts {facts['prediction']}, with "
        f"{perceptual_term}. {len(facts['classes'])} classes by {facts['condition']}; "
        f"{facts['images_without_class']:,} images without one."
    )
