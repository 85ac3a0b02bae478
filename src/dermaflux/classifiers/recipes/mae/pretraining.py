"""The recipe's part of the stage `pretrain`: `check`, then `train`.

Reads images through the pixel cache; writes what `Trained.save` is given folders for.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from dermaflux import paths
from dermaflux.classifiers.data import pretraining_set, samples
from dermaflux.classifiers.model import network
from dermaflux.classifiers.recipes.mae import autoencoder, probe
from dermaflux.classifiers.recipes.mae.encoder import Encoder, check_fits, describe, timm_weights
from dermaflux.classifiers.recipes.mae.objective import HeldOut, Objective
from dermaflux.classifiers.recipes.mae.plan import plan
from dermaflux.classifiers.recipes.mae.views import Steps
from dermaflux.core.arrays import Array, Pixels
from dermaflux.core.files import write_json
from dermaflux.core.seeds import derived_seed
from dermaflux.errors import InputError
from dermaflux.params import Params, Pretrain
from dermaflux.statistics import bootstrap
from dermaflux.training.curves import Curves
from dermaflux.training.fit import Event, fit
from dermaflux.training.peak_flops import measured_peak
from dermaflux.training.state import Settings
from dermaflux.training.validation_events import save_grid

if TYPE_CHECKING:
    from dermaflux.classifiers.data.pretraining_set import Chosen
    from dermaflux.classifiers.recipes.protocol import PretrainingRun

_MEASURED = 256
"""Validation images of the reconstruction loss while training."""
_SHOWN = 8
"""Validation images in the picture."""
_MEASUREMENTS = 10
"""Of the reconstruction loss on the way."""


def check(params: Params) -> None:
    """Raise `InputError` for an encoder, a mask or a model that does not fit; reads no image."""
    _encoder(params)


def _encoder(params: Params) -> Encoder:
    section, train = params.pretrain, params.train
    encoder = describe(section.architecture, train.models[section.architecture], train.image_size)
    hidden = autoencoder.hidden_patches(encoder, section)
    if not 0 < hidden < encoder.patches:
        raise InputError(
            f"pretrain.mask_ratio {section.mask_ratio:g} hides {hidden} of {encoder.patches} "
            "patches, and some must be hidden and some seen; set it nearer to 0.75"
        )
    for name in params.architectures():
        if train.models[name].pretrained_here:
            check_fits(encoder, name, train.models[name])
    return encoder


def train(run: PretrainingRun) -> Trained:
    """Train the autoencoder from the checkpoint or the start."""
    section, side = run.params.pretrain, run.params.train.image_size
    encoder, device = _encoder(run.params), run.processes.device
    config = network.configure(run.params.train.models[section.architecture], side)
    steps = Steps(len(run.images.image_ids), section.batch, run.params.seed)
    if steps.images // steps.per_epoch < run.processes.world:
        raise InputError(
            f"a step of pre-training shows {steps.images // steps.per_epoch} images, too few for "
            f"{run.processes.world} processes; raise pretrain.batch or start fewer"
        )
    planned = plan(encoder, section, math.ceil(section.batch / run.processes.world))
    if run.processes.main:
        print(planned.table(section.architecture, section.batch), flush=True)
    model = _untrained(encoder, section, run.params.seed).to(device)
    validation = samples.load_split(paths.CORPUS, "validation", side)
    probed = pretraining_set.labelled(side, section.probe_images, run.params.seed)
    measured = validation[1].pixels[_spread(_MEASURED, len(validation[1].labels))]
    held_out = HeldOut(model, config, measured, section.batch, run.params.seed)
    total = steps.per_epoch * section.epochs
    objective = Objective(
        model, config, run.images.pixels(side), run.images.image_ids, steps, total,
        section.crop_area, planned.training_flop_per_image, run.processes,
    )  # fmt: skip
    dtype = torch.bfloat16 if section.precision == "bf16" else torch.float32
    peak = measured_peak(device, dtype) * run.processes.world
    every = max(1, total // _MEASUREMENTS)
    with contextlib.closing(objective):
        curves = fit(
            "pretrain", objective, _settings(run, model, total), run.saved, run.log,
            [Event(every, held_out, at_start=True)], run.processes, peak,
        )  # fmt: skip
    return Trained(
        run.params, encoder, config, model, held_out, curves, run.images, validation, probed
    )


def _spread(count: int, images: int) -> Array:
    """At most `count` indices, evenly spread over images that are ordered by dataset."""
    return np.linspace(0, images - 1, min(count, images)).round().astype(int)


def _untrained(encoder: Encoder, section: Pretrain, seed: int) -> Any:
    torch.manual_seed(derived_seed(seed, "pretrain", "weights"))
    return autoencoder.build(encoder, section).train()


def _settings(run: PretrainingRun, model: nn.Module, total: int) -> Settings:
    from timm.optim._param_groups import param_groups_weight_decay

    section, runtime = run.params.pretrain, run.params.runtime.pretrain
    return Settings(
        steps=total,
        learning_rate=section.learning_rate,
        warmup_steps=section.warmup_epochs * (total // section.epochs),
        maximum_gradient_norm=math.inf,  # the MAE repository clips nothing
        checkpoint_steps=runtime.checkpoint_steps,
        betas=section.betas,
        log_steps=runtime.log_steps,
        parameter_groups=param_groups_weight_decay(model, section.weight_decay),
        autocast=torch.bfloat16 if section.precision == "bf16" else None,
    )


@dataclass(frozen=True)
class Trained:
    """A trained autoencoder and what it was trained on."""

    params: Params
    encoder: Encoder
    config: dict[str, Any]
    model: Any
    held_out: HeldOut
    curves: Curves
    images: Chosen
    validation: tuple[Any, samples.Samples]
    """Rows and images of the validation split."""
    probed: samples.Samples
    """Training images of the linear probe."""

    def save(self, folder: Path, figures: Path) -> dict[str, Any]:
        """Write weights, their configuration and `grid.png`; returns the figures of the stage.

        `folder` gets `model.safetensors` and a `config.json` with which timm opens it as
        `local-dir:FOLDER`.
        """
        weights = timm_weights(self.model.state_dict())
        network.save_weights(weights, folder / paths.PRETRAINED_WEIGHTS.name)
        # As trained: with the last normalisation on every token, whatever the classifier pools.
        described = {
            "architecture": self.config["name"],
            "num_classes": 0,
            "model_args": {**self.config["options"], "global_pool": "token"},
            "pretrained_cfg": {
                **{name: self.config[name] for name in ("mean", "std")},
                "input_size": [3, self.encoder.side, self.encoder.side],
                "num_classes": 0,
            },
        }
        write_json(folder / "config.json", described)
        save_grid(self.pictures(), 3, figures / "grid.png")
        write_json(figures / "curve.json", self.curves.events)
        facts = {
            "images": self.images.counts(),
            "steps": len(self.curves.training),
            "reconstruction_loss": self._last_epoch(),
            "validation_loss": self.curves.events[-1]["validation_loss"],
            "linear_probe": self._probe(weights),
        }
        return {"summary": _summary(facts), **facts}

    def _last_epoch(self) -> float:
        steps = len(self.curves.training) // self.params.pretrain.epochs
        return math.fsum(row["loss"] for row in self.curves.training[-steps:]) / steps

    def pictures(self) -> Pixels:
        """uint8 (3 N, S, S, 3): validation images, what is seen of each, its reconstruction."""
        part = _spread(_SHOWN, len(self.held_out.noise))
        images = self.held_out.normalised(part)
        with torch.no_grad():
            seen, whole = autoencoder.reconstructions(
                self.model.eval(), images, self.held_out.noise[part].to(images.device)
            )
        rows = torch.stack([images, seen, whole], dim=1).flatten(0, 1).cpu()
        mean, std = (network.channels(rows, self.config[name]) for name in ("mean", "std"))
        shown: Pixels = (
            (255 * (rows * std + mean)).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        )
        return shown

    def _probe(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """AUC on the validation split, of trained and of initial weights, with intervals."""
        params, (rows, scored) = self.params, self.validation
        section, training = params.pretrain, self.probed
        untrained = timm_weights(_untrained(self.encoder, section, params.seed).state_dict())
        scores = {}
        for name, values in (("mae", weights), ("random", untrained)):
            net = network.build(self.config)
            net.load_state_dict(values, strict=False)  # all but the last layers, see `encoder`
            net = net.to(self.model.device)
            parts = [
                probe.features(net, self.config, images, section.batch)
                for images in (training.pixels, scored.pixels)
            ]
            scores[name] = probe.probability(parts[0], training.labels, parts[1])
        confidence = params.evaluate.confidence
        weights_of_images = bootstrap.resamples(
            scored.labels, bootstrap.groups(rows), params.evaluate.bootstrap_samples, 0
        )
        tails = ((1 - confidence) / 2, (1 + confidence) / 2)
        return {
            "training_images": len(training.labels),
            "validation_images": len(scored.labels),
            **probe.figures(scored.labels, scores, weights_of_images, tails),
        }


def _summary(facts: Mapping[str, Any]) -> str:
    """The figures in one line."""
    words = {
        name: "{auc:.3f} [{auc_low:.3f}, {auc_high:.3f}]".format(**facts["linear_probe"][name])
        for name in ("mae", "random", "difference")
    }
    images = facts["images"]
    return (
        f"{facts['steps']:,} steps on {images['real']:,} real and {images['synthetic']:,} "
        f"synthetic images, squared error {facts['reconstruction_loss']:.4f}, on validation images "
        f"{facts['validation_loss']:.4f}; linear probe, validation AUC {words['mae']}, of random "
        f"weights {words['random']}, difference {words['difference']}"
    )
