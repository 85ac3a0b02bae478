"""Trains the tiny backbone: decoder first, then the flow on cached latents.

Reads rendered lesions of the stream `backbone`, which the phantom corpus does not use; writes the
pipeline's folder. Both phases resume from the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dermaflux.core.checkpoints import Checkpoint, checkpoint, fingerprint
from dermaflux.core.code_digest import stage_digest
from dermaflux.core.files import atomic_folder
from dermaflux.core.seeds import generator
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.generators.flux_lora.model.loss import flow_loss
from dermaflux.generators.flux_lora.model.prompt_padding import Text, encode, text_lengths
from dermaflux.generators.tiny_flux import autoencoder, pipeline
from dermaflux.params import Tiny
from dermaflux.progress import progress
from dermaflux.tracking.runs import Log
from dermaflux.training.fit import fit
from dermaflux.training.protocol import FunctionObjective, Step
from dermaflux.training.state import Settings

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FluxPipeline

    from dermaflux.captions.lesion.measured import Measurements
    from dermaflux.phantom import Lesion

SIDE = 128
STREAM = "backbone"
_HELD_OUT = 64
_VOCABULARY_LESIONS = 1000
_CHECKPOINT_STEPS = 100
# Values at the middle of the captioner's levels, so that its words describe the rendered truth.
_ASYMMETRY = (0.05, 0.13, 0.3)
_BORDER = (0.02, 0.06, 0.11, 0.2)


def truth(lesion: Lesion) -> Measurements:
    """What the captioner would measure on a rendered lesion if it measured without error."""
    from dermaflux.captions.lesion.measured import Measurements

    asymmetry, border = _ASYMMETRY[lesion.asymmetry], _BORDER[lesion.border]
    return Measurements(asymmetry, border, lesion.colours, 0.5)


def caption(lesion: Lesion) -> str:
    """The measured captioner's words for a lesion's true attributes, without its class.

    A general model knows borders and colours, not diagnoses; those are for `finetune` to teach.
    """
    from dermaflux.captions.text.description import describe
    from dermaflux.captions.text.label import label_sentence

    sentence = describe(truth(lesion), lesion.label, lesion.key)
    return sentence.replace(label_sentence(lesion.label), "This is an image containing a lesion.")


def vocabulary_text() -> list[str]:
    """Captions that hold every word a caption can have, whatever `images` is."""
    from dermaflux.captions.lesion.measured import Measurements
    from dermaflux.captions.text.description import describe
    from dermaflux.phantom import draw

    lesions = [draw(index, STREAM) for index in range(_VOCABULARY_LESIONS)]
    captions = [describe(truth(lesion), lesion.label, lesion.key) for lesion in lesions]
    rare = [
        describe(Measurements(None, None, colours, None), label, "")
        for colours in (None, ("white", "red"))
        for label in CLASSES
    ]
    return [*captions, *rare]


def train(tiny: Tiny, seed: int, folder: Path, log: Log) -> None:
    """Write the pipeline; raise `InputError` when the autoencoder misses `minimum_psnr`."""
    from dermaflux.phantom import draw

    lesions = [draw(index, STREAM) for index in range(tiny.images + _HELD_OUT)]
    pixels = rendered(lesions)
    key = fingerprint(code=stage_digest("backbone"), tiny=tiny.model_dump(), seed=seed)
    with checkpoint("backbone", key, output=folder) as saved:
        vae, mean, std, quality = _autoencoder(tiny, seed, pixels, saved, log)
        captions = [caption(lesion) for lesion in lesions[: tiny.images]]
        flow = pipeline.transformer(seed)
        pipe = pipeline.assemble(vae, flow, vocabulary_text(), seed)
        _flow(pipe, tiny, seed, mean, std, captions, saved, log)
        with atomic_folder(folder) as partial:
            pipeline.save(pipe, partial)
        saved.discard()
    parameters = sum(weight.numel() for weight in flow.parameters())
    print(
        f"backbone: tiny FluxPipeline of {parameters / 1e6:.1f} million transformer parameters "
        f"after {tiny.flow_steps:,} steps, decoder at {quality:.1f} dB, in {folder}",
        flush=True,
    )


def rendered(lesions: list[Lesion]) -> Tensor:
    """uint8 (N, 3, 128, 128)."""
    import numpy as np

    from dermaflux.phantom import render

    # Starting worker processes would take as long as the 5 seconds they could share.
    images = []
    with progress("backbone.render", len(lesions)) as advance:
        for lesion in lesions:
            images.append(render(lesion, SIDE, SIDE))
            advance(1)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def _autoencoder(
    tiny: Tiny, seed: int, pixels: Tensor, saved: Checkpoint, log: Log
) -> tuple[AutoencoderKL, Tensor, Tensor, float]:
    """The trained model, posterior mean and deviation of the training images, held-out PSNR."""
    torch.manual_seed(seed)
    training, held_out = pixels[: tiny.images], pixels[tiny.images :]
    vae = autoencoder.build(training[:240], SIDE)
    mean, std = autoencoder.moments(vae, training)
    autoencoder.set_statistics(vae, mean)
    vae.decoder.to(memory_format=torch.channels_last)
    settings = settings_of(tiny.autoencoder_steps, tiny.autoencoder_learning_rate)
    decoder = saved.part("decoder")
    fit(
        "backbone.decoder",
        FunctionObjective(
            dict(vae.decoder.named_parameters()),
            lambda step: [
                autoencoder.decoder_step(
                    vae, training, mean, tiny.autoencoder_crop, tiny.autoencoder_batch, seed, step
                )
            ],
        ),
        settings,
        decoder,
        Prefixed(log, "decoder"),
    )
    vae.decoder.to(memory_format=torch.contiguous_format)
    vae.eval()
    quality = autoencoder.psnr(vae, held_out)
    log.metrics({"decoder/held_out_psnr": quality}, tiny.autoencoder_steps)
    if quality < tiny.minimum_psnr:
        raise InputError(
            f"the autoencoder reconstructs held-out lesions at {quality:.1f} dB, below the "
            f"backbone.tiny.minimum_psnr of {tiny.minimum_psnr:g}; raise "
            "backbone.tiny.autoencoder_steps"
        )
    return vae, mean, std, quality


def settings_of(steps: int, learning_rate: float) -> Settings:
    """How either phase optimises."""
    return Settings(
        steps=steps,
        learning_rate=learning_rate,
        warmup_steps=min(50, steps // 10),
        maximum_gradient_norm=1.0,
        checkpoint_steps=_CHECKPOINT_STEPS,
    )


def _flow(
    pipe: FluxPipeline,
    tiny: Tiny,
    seed: int,
    mean: Tensor,
    std: Tensor,
    captions: list[str],
    saved: Checkpoint,
    log: Log,
) -> None:
    texts = Texts(pipe, captions)
    shift, scale = pipe.vae.config.shift_factor, pipe.vae.config.scaling_factor

    def step_of(step: int) -> list[Step]:
        noise = generator(seed, "flow", step)
        chosen, text = texts.draw(tiny.flow_batch, noise)
        latents = mean[chosen] + std[chosen] * torch.randn(mean[chosen].shape, generator=noise)
        # Any guidance value must be safe to ask for: there is nothing here to distil it from.
        guidance = 1 + 4 * torch.rand(tiny.flow_batch, generator=noise)
        loss = flow_loss(
            pipe.transformer, (latents - shift) * scale, text, guidance, "logit-normal", noise
        )
        return [Step(loss, [f"{STREAM}/{int(index)}" for index in chosen])]

    settings = settings_of(tiny.flow_steps, tiny.flow_learning_rate)
    objective = FunctionObjective(dict(pipe.transformer.named_parameters()), step_of)
    fit("backbone.flow", objective, settings, saved.part("flow"), Prefixed(log, "flow"))


class Texts:
    """All captions encoded at their own lengths, as `trim` samples them later.

    Pads are seen unmasked, so a model trained with one length would meet another as a stranger.
    """

    def __init__(self, pipe: FluxPipeline, captions: Sequence[str]) -> None:
        lengths = torch.tensor(text_lengths(pipe, captions, "trim"))
        distinct = lengths.unique()
        self._indices = [(lengths == length).nonzero().flatten() for length in distinct]
        self._texts = [
            encode(pipe, [captions[index] for index in indices], int(length))
            for indices, length in zip(self._indices, distinct, strict=True)
        ]
        self._sizes = torch.tensor([float(len(indices)) for indices in self._indices])

    def draw(self, count: int, noise: torch.Generator) -> tuple[Tensor, Text]:
        """Indices (count,) of captions of one length, and their text.

        A length comes up as often as it has captions, so every caption is as likely as another.
        """
        group = int(torch.multinomial(self._sizes, 1, generator=noise))
        within = torch.randint(len(self._indices[group]), (count,), generator=noise)
        text = self._texts[group]
        part = Text(text.tokens[within], text.pooled[within], text.ids)
        return self._indices[group][within], part


class Prefixed:
    """A `Log` whose metric names carry the phase."""

    def __init__(self, log: Log, phase: str) -> None:
        self._log, self._phase = log, phase

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Metrics of a step."""
        self._log.metrics({f"{self._phase}/{name}": v for name, v in values.items()}, step)

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file."""
        self._log.artifact(path, folder)
