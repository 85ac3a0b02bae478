"""How this generator comes to be: a U-ViT trained from random weights on cached latents and text.

Reads what its inputs stand for; writes the checkpoint, the grid and the weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from dermaflux.captions.text.label import label_sentence
from dermaflux.core.arrays import Pixels
from dermaflux.core.hashing import rank
from dermaflux.core.seeds import derived_seed
from dermaflux.errors import InputError
from dermaflux.generators.data import autoencoder, standardisation
from dermaflux.generators.data.arrangement import Order, TrainingData, arrange
from dermaflux.generators.data.classes import MALIGNANCY
from dermaflux.generators.data.diffusion import DiffusionPath
from dermaflux.generators.data.images import Sample, TrainingImages
from dermaflux.generators.data.latents import Latents, downsampling
from dermaflux.generators.protocol import Facts, Json, Need, Trainer, TrainingRun
from dermaflux.generators.vap.model import text, uvit, weights
from dermaflux.generators.vap.model.options import GENERATOR
from dermaflux.generators.vap.model.text import TextTower
from dermaflux.generators.vap.model.weights import Description, LatentModel
from dermaflux.generators.vap.sampling.sample import SamplingSettings, Wanted, images
from dermaflux.generators.vap.settings import Finetune
from dermaflux.generators.vap.training.figures import cost, summary
from dermaflux.generators.vap.training.objective import Objective, held_out_loss
from dermaflux.generators.vap.training.text_cache import TextSource, cache_text
from dermaflux.params.fields import GeneratorSettings
from dermaflux.training.curves import Curves
from dermaflux.training.fit import fit
from dermaflux.training.peak_flops import measured_peak
from dermaflux.training.state import Settings
from dermaflux.training.validation_events import Grid, generator_events

if TYPE_CHECKING:
    from pathlib import Path

    from dermaflux.core.checkpoints import Checkpoint

_GRID_SIDE = 4  # images of each class
_GRID_STEPS, _GRID_GUIDANCE = 20, 2.0


class VapTrainer:
    """The entry `training.trainer` of this generator."""

    needs: frozenset[Need] = frozenset({"captions", "backbone"})

    def trains(self, settings: GeneratorSettings) -> bool:
        """Always."""
        return True

    def install(self, run: TrainingRun, folder: Path) -> Facts:
        """Not called, since `trains` is true."""
        raise NotImplementedError("vap has no finished weights to install")

    def prepare(self, run: TrainingRun, images: TrainingImages) -> VapTraining:
        """The U-ViT with random weights, or why the parameters do not fit, in one `InputError`."""
        settings, processes = run.settings, run.processes
        assert isinstance(settings, Finetune)
        data = _described(settings, arrange(GENERATOR, settings.scale, settings.condition, images))
        order = Order(
            GENERATOR, len(data.samples), settings.batch, settings.micro_batches, run.seed
        )
        order.share(0, processes.rank, processes.world)
        origin = autoencoder.reference(
            settings.latents, settings.latents_revision, run.backbone, GENERATOR
        )
        vae, tower = autoencoder.load(origin, processes.device), _tower(settings, run)
        shape = _shape(settings, vae, data, tower)
        steps = settings.steps or order.steps(settings.epochs)
        if processes.main:
            print(cost(run, settings, shape, steps), flush=True)
        everything = [*data.samples, *data.held_out]
        latents = Latents(
            vae, run.corpus, everything, processes.rank, processes.world, processes.wait
        )
        source, cut = None, 0
        if tower is not None:
            prompts = sorted({"", *(sample.caption for sample in everything)})
            cut = _cut(tower, data, processes.main)
            source = cache_text(tower, prompts, processes)
        description = Description(
            shape,
            DiffusionPath(
                settings.prediction, settings.beta_start, settings.beta_end, "scaled_linear"
            ),
            settings.condition, data.classes, settings.scale, settings.latents,
            settings.latents_revision, origin.identity, settings.text, settings.text_encoder,
            settings.text_encoder_revision, None if tower is None else tower.reference.identity,
        )  # fmt: skip
        model = _model(description, latents, data, run)
        return VapTraining(run, settings, Inputs(model, vae, source, data, order, latents, cut))


TRAINER: Trainer = VapTrainer()


def _described(settings: Finetune, data: TrainingData) -> TrainingData:
    """With the texts that the model reads: the captions, the sentences of the classes, or none."""
    if settings.text == "captions":
        return data

    def changed(sample: Sample) -> Sample:
        diagnosis = None if settings.condition == MALIGNANCY else sample.diagnosis
        sentence = label_sentence(sample.label, diagnosis)
        return replace(sample, caption=sentence if settings.text == "label" else "")

    samples, held_out = ([changed(s) for s in part] for part in (data.samples, data.held_out))
    return replace(data, samples=samples, held_out=held_out)


def _tower(settings: Finetune, run: TrainingRun) -> TextTower | None:
    if settings.text == "none":
        return None
    origin = text.reference(settings.text_encoder, settings.text_encoder_revision, run.backbone)
    return text.load(origin, run.processes.device)


def _shape(settings: Finetune, vae: Any, data: TrainingData, tower: TextTower | None) -> uvit.Shape:
    """Raises `InputError` for a side that the autoencoder or the patches do not divide."""
    factor = downsampling(vae)
    side = settings.scale // factor
    if settings.scale % factor or side % settings.patch:
        raise InputError(
            f"finetune.vap.scale {settings.scale} px gives latents of {side} px, which patches of "
            f"{settings.patch} do not divide; choose another finetune.vap.patch, scale or "
            "autoencoder"
        )
    return uvit.Shape(
        int(vae.config.latent_channels),
        side,
        settings.patch,
        settings.width,
        settings.depth,
        settings.heads,
        len(data.classes),
        0 if tower is None else tower.tokens,
        0 if tower is None else tower.width,
        settings.prototypes,
        settings.variant,
        settings.reconstruction_target,
    )


def _cut(tower: TextTower, data: TrainingData, main: bool) -> int:
    """Training images whose descriptions end beyond the tower's limit, said in a line."""
    counts = tower.counts([sample.caption for sample in data.samples])
    cut = sum(count > tower.tokens for count in counts)
    if cut and main:
        print(
            f"finetune: {cut:,} of {len(counts):,} descriptions have more than {tower.tokens} "
            f"tokens, the longest {max(counts):,}, and are cut there; shorten captions, or choose "
            "a finetune.vap.text_encoder that reads more",
            flush=True,
        )
    return cut


def _model(
    description: Description, latents: Latents, data: TrainingData, run: TrainingRun
) -> LatentModel:
    """The U-ViT with random weights on this process's device, with statistics of the latents."""
    device = run.processes.device
    mean, deviation = standardisation.measured(latents, data.samples, description.latents)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(run.seed, "uvit"))
        network = uvit.UViT(description.shape)
    network.to(device)
    return LatentModel(network, description, mean.to(device), deviation.to(device))


@dataclass(frozen=True)
class Inputs:
    """Everything a training reads: all in memory, or behind a cache."""

    model: LatentModel
    vae: Any
    text: TextSource | None
    data: TrainingData
    order: Order
    latents: Latents
    cut: int
    """Descriptions beyond the text tower's limit."""


class VapTraining:
    """A U-ViT ready to be trained; a `protocol.Training`."""

    def __init__(self, run: TrainingRun, settings: Finetune, inputs: Inputs) -> None:
        self._run, self._settings, self._inputs = run, settings, inputs
        description = inputs.model.description
        self.identity: Mapping[str, Json] = {
            "backbone": description.autoencoder,
            "text_tower": description.tower,
            # `finetune` keys its checkpoint by images, labels and captions; these decide classes.
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
            model, data, inputs.order, inputs.latents, inputs.text, settings, run.seed, steps,
            processes,
        )  # fmt: skip
        grid = Grid(self._sample_grid, _GRID_SIDE, run.grid, run.log, processes)
        loss = None
        if data.held_out:
            loss = held_out_loss(model, data, inputs.latents, inputs.text, settings, processes)
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
                "finetune", objective, optimisation, saved, run.log, events, processes, peak
            )
        grid.complete(steps)
        return curves

    def _sample_grid(self) -> Pixels:
        """A row of each class, from fixed noise and fixed descriptions of training images."""
        inputs, flow = self._inputs, self._settings.prediction == "flow"
        sampling = SamplingSettings("euler" if flow else "dpm_solver", _GRID_STEPS, _GRID_GUIDANCE)
        wanted = [
            Wanted(index, prompt, derived_seed(self._run.seed, "grid", index, column))
            for index in range(len(inputs.data.classes))
            for column, prompt in enumerate(_shown(inputs.data, index))
        ]
        return images(inputs.model, inputs.vae, inputs.text, sampling, wanted)

    def save(self, folder: Path) -> Facts:
        """Write the weights; return what the report must know."""
        model, data, settings = self._inputs.model, self._inputs.data, self._settings
        weights.save(model, folder)
        shape = model.description.shape
        facts: Facts = {
            **settings.model_dump(exclude={"steps", "epochs", "warmup_steps"}),
            "classes": {
                name: sum(data.embedding(sample) == index for sample in data.samples)
                for index, name in enumerate(data.classes)
            },
            "images_without_class": sum(
                data.embedding(sample) == len(data.classes) for sample in data.samples
            ),
            "latent_shape": [shape.channels, shape.side, shape.side],
            "tokens": shape.tokens,
            "text_shape": [shape.text_tokens, shape.text_width],
            "descriptions": len({sample.caption for sample in data.samples}),
            "descriptions_cut": self._inputs.cut,
            "trainable_parameters": uvit.parameters(shape),
            "forward_gflop": round(uvit.forward_flop(shape) / 1e9, 3),
            "backbone": model.description.autoencoder,
            "text_tower": model.description.tower,
        }
        return {**facts, "summary": summary(facts)}


def _shown(data: TrainingData, index: int) -> list[str]:
    """Descriptions of training images of a class, chosen by hash and repeated where too few."""
    members = [sample for sample in data.samples if data.embedding(sample) == index]
    members.sort(key=lambda sample: rank("grid", sample.image_id))
    return [members[column % len(members)].caption for column in range(_GRID_SIDE)]
