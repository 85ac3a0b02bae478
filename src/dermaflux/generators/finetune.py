"""Stage `finetune`: a rectified-flow LoRA on the backbone (paper section 2.2).

Reads corpus/ (split `train`), captions/, models/backbone/. Writes models/generator/
(pytorch_lora_weights.safetensors, finetune.json, loss.csv) and reports/finetune/grid.png.
Run with `dermaflux finetune`. The same lines adapt the tiny backbone on a CPU and FLUX.1-dev on a
GPU; only parameters differ.
"""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dermaflux import paths, table, tracking
from dermaflux.captions import lengths
from dermaflux.checkpoints import Checkpoint, checkpoint, fingerprint
from dermaflux.generators import lora, pipeline
from dermaflux.generators.fit import Settings, Step, fit
from dermaflux.generators.flow_step import flow_loss
from dermaflux.generators.sampling import Sampler, sample, save_grid
from dermaflux.generators.text_policy import encode
from dermaflux.generators.training_images import (
    CLASSES,
    Latents,
    Sample,
    captioned,
    epoch_batches,
    select,
    trainable,
)
from dermaflux.params import Finetune, Params
from dermaflux.seeds import derived_seed, generator
from dermaflux.tracking import Log

if TYPE_CHECKING:
    from diffusers import FluxPipeline

SETTINGS = "finetune.json"
CURVE = "loss.csv"
GRID = paths.REPORTS / "finetune" / "grid.png"
_GRID_SIDE = 4  # images of each class
_GRID_STEPS = 20
_INPUTS = (paths.CORPUS, paths.CAPTIONS, paths.BACKBONE)


def run(params: Params) -> None:
    """Fine-tune, and log curve, speed and grids as an MLflow run."""
    section = params.finetune
    parameters = {"seed": params.seed, **section.model_dump()}
    with tracking.start("generator", "finetune", parameters, inputs=_INPUTS) as log:
        finetune(section, params.seed, *_INPUTS, paths.GENERATOR, GRID, log)
        log.artifact(paths.GENERATOR / CURVE)
        log.outputs(paths.GENERATOR)


def finetune(
    section: Finetune,
    seed: int,
    corpus: Path,
    captions: Path,
    backbone: Path,
    output: Path,
    grid: Path,
    log: Log,
) -> None:
    """Train the adapter from the checkpoint or the start and write `output` and `grid`.

    Raises `InputError` for an empty class, a missing caption or a loss that is not finite.
    """
    described = captioned(corpus, captions)
    rows = trainable(described)
    samples = select(rows, section.scales, section.maximum_images, seed)
    origin = pipeline.reference(backbone)
    key = fingerprint(
        section=section.model_dump(),
        seed=seed,
        backbone=origin.identity,
        images=[[one.image_id, one.sha256, one.label, one.caption] for one in samples],
    )
    pipe = pipeline.load(backbone, section.precision)
    tokens = lengths.figures(
        lengths.in_tokens(pipe.tokenizer_2, [one.caption for one in samples]), section.text_tokens
    )
    print(lengths.drawn(tokens))
    quantiles = {name: tokens[name] for name in ("median", "p95", "p99", "longest", "cut")}
    log.metrics({f"caption_tokens_{name}": float(n) for name, n in quantiles.items()}, 0)
    latents = Latents(pipe, corpus, samples)
    weights = lora.add(
        pipe.transformer,
        section.targets,
        section.rank,
        section.alpha,
        derived_seed(seed, "adapter"),
    )
    if section.gradient_checkpointing:
        pipe.transformer.enable_gradient_checkpointing()
    with checkpoint("finetune", key) as saved, table.atomic_folder(output) as partial:
        curve = _train(section, seed, pipe, samples, latents, weights, saved, grid, log)
        facts = _facts(section, tokens, samples, len(rows), len(curve), weights)
        facts["images_held_out"] = len(described) - len(rows)
        lora.save(pipe.transformer, partial, facts)
        table.write_json(partial / SETTINGS, {**facts, "backbone": origin.identity})
        lines = [f"{row['step']},{row['loss']:.6f},{row['learning_rate']:.8f}" for row in curve]
        table.write_text(partial / CURVE, "\n".join(["step,loss,learning_rate", *lines]) + "\n")
        saved.discard()


def _train(
    section: Finetune,
    seed: int,
    pipe: FluxPipeline,
    samples: list[Sample],
    latents: Latents,
    weights: dict[str, torch.nn.Parameter],
    saved: Checkpoint,
    grid: Path,
    log: Log,
) -> list[dict[str, float]]:
    batches = _batches(section, samples, seed)
    device = pipe.transformer.device
    low = section.precision == "bf16"

    def step_of(step: int) -> Step:
        batch = [samples[index] for index in batches[step]]
        noise = generator(seed, "finetune", step)
        data = latents.draw(batch, noise)
        text = encode(pipe, [one.caption for one in batch], section.text_tokens)
        guidance = torch.full((len(batch),), section.guidance)
        # The base stays in bf16 while adapter and optimiser are fp32.
        cast = torch.autocast(device.type, torch.bfloat16) if low else contextlib.nullcontext()
        with cast:
            loss = flow_loss(
                pipe.transformer, data, text, guidance, section.timestep_density, noise
            )
        return Step(loss, [one.image_id for one in batch])

    prompts, scale = _grid_prompts(samples)
    sampler = Sampler(_GRID_STEPS, section.guidance, scale, section.text_tokens)

    def after(step: int) -> None:
        if step % section.grid_steps == 0 or step == len(batches):
            seeds = [derived_seed(seed, "grid", index) for index in range(len(prompts))]
            pipe.transformer.eval()
            save_grid(sample(pipe, sampler, prompts, seeds), _GRID_SIDE, grid)
            pipe.transformer.train()
            named = grid.with_name(f"step-{step:06d}.png")
            grid.rename(named)
            log.artifact(named, "grids")
            named.rename(grid)

    settings = Settings(
        steps=len(batches),
        learning_rate=section.learning_rate,
        warmup_steps=section.warmup_steps,
        maximum_gradient_norm=section.maximum_gradient_norm,
        checkpoint_steps=section.checkpoint_steps,
        weight_decay=1e-4,
        betas=(0.9, 0.999),
    )
    grid.unlink(missing_ok=True)
    pipe.transformer.train()
    curve = fit("finetune", weights, settings, step_of, saved, log, after)
    pipe.transformer.eval()
    if not grid.exists():
        # The run was killed after its last step: everything is there but the picture.
        after(len(batches))
    return curve


def _batches(section: Finetune, samples: list[Sample], seed: int) -> list[list[int]]:
    """All batches of the run in order: `steps` of them, or whole epochs when `steps` is 0."""
    epochs = (epoch_batches(samples, section.batch, seed, epoch) for epoch in itertools.count())
    if section.steps:
        return list(itertools.islice(itertools.chain.from_iterable(epochs), section.steps))
    return list(itertools.chain.from_iterable(itertools.islice(epochs, section.epochs)))


def _grid_prompts(samples: list[Sample]) -> tuple[list[str], int]:
    """The first captions of each class, and the smallest training scale."""
    prompts = [
        caption
        for label in CLASSES
        for caption in [one.caption for one in samples if one.label == label][:_GRID_SIDE]
    ]
    return prompts, min(one.scale for one in samples)


def _facts(
    section: Finetune,
    tokens: dict[str, Any],
    samples: list[Sample],
    captioned_images: int,
    steps: int,
    weights: dict[str, torch.nn.Parameter],
) -> dict[str, object]:
    """What a later sampling must know, and what the report shows."""
    by_scale = {str(scale): sum(one.scale == scale for one in samples) for scale in section.scales}
    return {
        "targets": section.targets,
        "rank": section.rank,
        "alpha": section.alpha,
        "trainable_parameters": sum(parameter.numel() for parameter in weights.values()),
        "text_tokens": section.text_tokens,
        "text_policy": "padded, unmasked",
        "captions_cut": tokens["cut"],
        "longest_caption_tokens": tokens["longest"],
        "caption_tokens": tokens,
        "guidance": section.guidance,
        "timestep_density": section.timestep_density,
        "precision": section.precision,
        "steps": steps,
        "batch": section.batch,
        "learning_rate": section.learning_rate,
        "images": by_scale,
        "images_per_class": {
            label: sum(one.label == label for one in samples) for label in CLASSES
        },
        "images_left_out": captioned_images - len(samples),
    }
