"""What a run says of its model: the cost before it begins, and the summary for the report. Pure."""

from __future__ import annotations

from dataclasses import replace

from dermaflux.generators.protocol import Facts, TrainingRun
from dermaflux.generators.vap.model import uvit
from dermaflux.generators.vap.model.options import GENERATOR
from dermaflux.generators.vap.settings import Finetune, Synthesize


def cost(run: TrainingRun, settings: Finetune, shape: uvit.Shape, steps: int) -> str:
    """What a run will take, said before it begins."""
    forward, plain = (uvit.forward_flop(each) for each in (shape, replace(shape, prototypes=0)))
    mechanism = f", {1 - plain / forward:.1%} of it for prototypes" if shape.prototypes else ""
    total = 3 * forward * settings.batch * steps
    return (
        f"finetune: U-ViT of {uvit.parameters(shape):,} parameters on {shape.tokens:,} tokens, of "
        f"which {shape.text_tokens:,} are text; {forward / 1e9:.3g} GFLOP an image and forward "
        f"pass{mechanism}; {steps:,} steps of {settings.batch:,} images take {total / 1e15:.3g} "
        f"PFLOP{_sampling_cost(run, forward)}"
    )


def _sampling_cost(run: TrainingRun, forward: float) -> str:
    """What an image of the pool will take, where it is known how it will be sampled."""
    if run.synthesize is None:
        return ""
    sampling = run.synthesize.settings(GENERATOR)
    assert isinstance(sampling, Synthesize)
    passes = sampling.steps * (1 if sampling.guidance == 1 else 2)
    return (
        f"; an image of {sampling.steps:,} steps at guidance {sampling.guidance:g} takes "
        f"{passes * forward / 1e12:.3g} TFLOP"
    )


def summary(facts: Facts) -> str:
    """A sentence or more of the facts in finetune.json; the first is also printed."""
    channels, side, _ = facts["latent_shape"]
    tokens, width = facts["text_shape"]
    described = f"text {facts['text']}, {tokens} tokens of width {width}" if tokens else "no text"
    mechanism = (
        f"{facts['prototypes']} prototypes a class ({facts['variant']}, target "
        f"{facts['reconstruction_target']}, weight {facts['alpha']:g})"
        if facts["prototypes"]
        else "no prototypes"
    )
    return (
        f"U-ViT of {facts['trainable_parameters']:,} parameters, {facts['forward_gflop']:.3g} "
        f"GFLOP an image and pass, on {channels}x{side}x{side} latents of {facts['scale']} px "
        f"images. It predicts {facts['prediction']}, with {described}, and {mechanism}. "
        f"{facts['descriptions_cut']:,} descriptions cut. {len(facts['classes'])} classes by "
        f"{facts['condition']}; {facts['images_without_class']:,} images without one."
    )
