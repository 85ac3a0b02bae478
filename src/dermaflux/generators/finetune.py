"""Stage `finetune`: a rectified-flow LoRA on the backbone (paper section 2.2).

Reads corpus/ (splits `train` and, for the held-out loss, `validation`), captions/,
models/backbone/. Writes models/generator/ (pytorch_lora_weights.safetensors, finetune.json,
loss.csv, validation_loss.csv) and reports/finetune/grid.png. Run with `dermaflux finetune`, or on
several GPUs with `accelerate launch [...] -m dermaflux finetune`. The same lines adapt the tiny
backbone on a CPU and FLUX.1-dev on GPUs; only parameters differ. With `finetune.imported` a
finished LoRA is taken instead, and with `generator: folder` none is needed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dermaflux import paths
from dermaflux.captions.text import lengths
from dermaflux.core.checkpoints import checkpoint, fingerprint
from dermaflux.core.files import atomic_folder, write_json, write_text
from dermaflux.core.seeds import derived_seed
from dermaflux.core.vocabulary import CLASSES
from dermaflux.generators.data.latents import Latents
from dermaflux.generators.flux_lora.files import imported
from dermaflux.generators.flux_lora.model import lora, pipeline
from dermaflux.generators.flux_lora.model.flops import Adapter, Shape
from dermaflux.generators.flux_lora.model.lora import SETTINGS
from dermaflux.generators.flux_lora.model.prompt_padding import ResidentText, TextSource
from dermaflux.generators.flux_lora.training import data as training_data
from dermaflux.generators.flux_lora.training import memory_plan, sharding, train
from dermaflux.generators.flux_lora.training.checkpointing import recompute
from dermaflux.generators.flux_lora.training.data import TrainingData
from dermaflux.generators.flux_lora.training.text_cache import cache_text
from dermaflux.params import Finetune, Params
from dermaflux.tracking import runs
from dermaflux.tracking.runs import Log, Silent
from dermaflux.training.distributed import Processes, join
from dermaflux.training.torch_compile import compile_blocks

if TYPE_CHECKING:
    from diffusers import FluxPipeline

CURVE = "loss.csv"
VALIDATION = "validation_loss.csv"
GRID = paths.REPORTS / "finetune" / "grid.png"
CHANGE_NO_RESULT = frozenset(
    {
        "log_steps",
        "checkpoint_steps",
        "grid_steps",
        "validation_steps",
        "gradient_checkpointing",
        "text_cache",
    }
)
"""Parameters that leave the trained weights as they are, bit by bit: a run continues across them.

`compile` and `base_dtype` round differently, and `validation_images` decides what a curve means."""
_INPUTS = (paths.CORPUS, paths.CAPTIONS, paths.BACKBONE)


def run(params: Params) -> None:
    """Fine-tune, and log curve, speed and grids as an MLflow run."""
    section, processes = params.finetune, join()
    if params.generator == "folder" or section.imported is not None:
        if processes.main:
            _without_training(params)
        return
    with _log(section, params.seed, processes) as log:
        finetune(section, params.seed, *_INPUTS, paths.GENERATOR, GRID, log, processes)
        if isinstance(log, runs.Run):
            log.artifact(paths.GENERATOR / CURVE)
            log.artifact(paths.GENERATOR / VALIDATION)
            log.outputs(paths.GENERATOR)


def _log(section: Finetune, seed: int, processes: Processes) -> Any:
    """The MLflow run in the main process, silence in the others."""
    if not processes.main:
        return contextlib.nullcontext(Silent())
    parameters = {"seed": seed, "processes": processes.world, **section.model_dump()}
    return runs.start("generator", "finetune", parameters, _INPUTS, system_metrics=True)


def _without_training(params: Params) -> None:
    """The stage's outputs where nothing is trained: a finished LoRA, or why there is none."""
    section = params.finetune
    if params.generator == "folder":
        facts = {"generator": "folder", "folder": params.synthesize.folder}
        with atomic_folder(paths.GENERATOR) as partial:
            write_json(partial / SETTINGS, facts)
    else:
        facts = {"imported": section.imported}
        parameters = {"seed": params.seed, **section.model_dump()}
        with runs.start("generator", "finetune", parameters, [paths.BACKBONE]) as log:
            imported.write(section, paths.BACKBONE, paths.GENERATOR, log)
            log.outputs(paths.GENERATOR)
    with atomic_folder(GRID.parent) as partial:
        write_json(partial / SETTINGS, facts)


def finetune(
    section: Finetune,
    seed: int,
    corpus: Path,
    captions: Path,
    backbone: Path,
    output: Path,
    grid: Path,
    log: Log,
    processes: Processes | None = None,
) -> None:
    """Train the adapter from the checkpoint or the start and write `output` and `grid`.

    Raises `InputError` for an empty class, a missing caption, micro-batches that the processes
    cannot share, or a loss that is not finite.
    """
    processes = processes or join()
    sharding.check(section, processes)
    origin = pipeline.reference(backbone)
    data = training_data.read(section, seed, corpus, captions, pipeline.tokenizers(backbone))
    data.order.share(0, processes.rank, processes.world)
    recomputed = _planned(section, backbone, data, processes)
    if processes.main:
        _announce(data, section, log)
    text = _cached_text(section, backbone, origin.identity, data, processes)
    pipe, weights = _model(section, seed, backbone, len(data.order.shapes), recomputed, processes)
    images = [*data.samples, *data.held_out]
    latents = Latents(pipe.vae, corpus, images, processes.rank, processes.world, processes.wait)
    inputs = train.Inputs(pipe, weights, data, latents, text or ResidentText(pipe))
    with checkpoint(
        "finetune", _key(section, seed, origin.identity, data), processes.main
    ) as saved:
        processes.wait()
        curves = train.train(section, seed, inputs, saved, grid, log, processes)
        if processes.main:
            facts = _facts(section, data, weights)
            facts["steps"] = len(curves.training)
            with atomic_folder(output) as partial:
                lora.save(pipe.transformer, partial, facts)
                last = curves.events[-1] if curves.events else {}
                measured = {name: value for name, value in last.items() if name != "step"}
                write_json(partial / SETTINGS, {**facts, **measured, "backbone": origin.identity})
                _write_curve(curves.training, ("step", "loss", "learning_rate"), partial / CURVE)
                names = ("step", *measured) if measured else ("step", "validation_loss")
                _write_curve(curves.events, names, partial / VALIDATION)
        processes.wait()
        if processes.main:
            saved.discard()


def _planned(section: Finetune, backbone: Path, data: TrainingData, processes: Processes) -> int:
    """Print what memory the run will take, before anything is loaded; blocks to recompute.

    Raises `InputError` when it does not fit this process's device.
    """
    parts = pipeline.on_meta(backbone)
    model: Any = parts["transformer"]
    shapes = data.order.shapes.items()
    run = memory_plan.Training(
        base_dtype=section.base_dtype,
        adapter=Adapter(section.rank, section.targets),
        trainable=lora.count(model, section.targets, section.rank),
        ema=section.ema_decay is not None,
        text_cache=section.text_cache,
        checkpointing=section.gradient_checkpointing,
        batches=memory_plan.batches(
            ((bucket.image_tokens, bucket.text_tokens), images) for bucket, images in shapes
        ),
        processes=processes.world,
        sharded=processes.sharded,
    )
    found = memory_plan.plan(parts, Shape.of(model.config), run, processes.device)
    if processes.main:
        print(found.table(), flush=True)
    return found.recomputed


def _announce(data: TrainingData, section: Finetune, log: Log) -> None:
    """Print what the captions are like, before anything is loaded."""
    tokens = data.lengths()
    print(lengths.bar_chart(tokens), flush=True)
    if (warning := data.clip.warning([one.image_id for one in data.samples])) is not None:
        print(warning, flush=True)
    if section.validation_images and not data.held_out:
        print("no captioned image of the split validation: no held-out loss", flush=True)
    quantiles = {name: tokens[name] for name in ("median", "p95", "p99", "longest", "cut")}
    log.metrics({f"caption_tokens_{name}": float(n) for name, n in quantiles.items()}, 0)


def _key(section: Finetune, seed: int, backbone: str, data: TrainingData) -> str:
    return fingerprint(
        section={k: v for k, v in section.model_dump().items() if k not in CHANGE_NO_RESULT},
        seed=seed,
        backbone=backbone,
        images=[[one.image_id, one.sha256, one.label, one.caption] for one in data.samples],
    )


def _cached_text(
    section: Finetune, backbone: Path, identity: str, data: TrainingData, processes: Processes
) -> TextSource | None:
    """All captions encoded on disk, when the text encoders shall not stay on the device."""
    if not section.text_cache:
        return None
    images = [*data.samples, *data.held_out]
    return cache_text(
        lambda: pipeline.load(backbone, section.base_dtype, processes.device, pipeline.TEXT_PARTS),
        f"{identity}/{section.base_dtype}",
        [one.caption for one in images],
        [bucket.text_tokens for bucket in data.buckets + data.held_out_buckets],
        processes.device,
        processes.rank,
        processes.world,
        processes.wait,
    )


def _model(
    section: Finetune,
    seed: int,
    backbone: Path,
    shapes: int,
    recomputed: int,
    processes: Processes,
) -> tuple[FluxPipeline, dict[str, nn.Parameter]]:
    """The pipeline on this process's device, with a fresh adapter in its transformer."""
    # A base that will be sharded stays in CPU memory until each process takes its part.
    first = torch.device("cpu") if processes.sharded else processes.device
    parts = pipeline.PICTURE_PARTS if section.text_cache else pipeline.PARTS
    pipe = pipeline.load(backbone, section.base_dtype, first, parts)
    model = pipe.transformer
    weights = lora.add(
        model, section.targets, section.rank, section.alpha, derived_seed(seed, "adapter")
    )
    recompute(model, recomputed)
    if section.compile:
        compile_blocks(model, shapes)
    if processes.sharded:
        sharding.shard(model, weights.values(), processes)
        for part in (pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
            if part is not None:
                part.to(processes.device)
    return pipe, weights


def _facts(
    section: Finetune, data: TrainingData, weights: Mapping[str, nn.Parameter]
) -> dict[str, Any]:
    """What a later sampling must know, and what the report shows."""
    samples, tokens = data.samples, data.lengths()
    return {
        "targets": section.targets,
        "rank": section.rank,
        "alpha": section.alpha,
        "trainable_parameters": sum(parameter.numel() for parameter in weights.values()),
        "text_policy": section.text_policy,
        "captions_cut": tokens["cut"],
        "captions_cut_by_clip": len(data.clip.cut),
        "captions_without_class_for_clip": len(data.clip.class_lost),
        "longest_caption_tokens": tokens["longest"],
        "caption_tokens": tokens,
        "guidance": section.guidance,
        "timestep_density": section.timestep_density,
        "base_dtype": section.base_dtype,
        "ema_decay": section.ema_decay,
        "batch_tokens": section.batch_tokens,
        "micro_batches": section.micro_batches,
        "buckets": len(data.order.shapes),
        "padding_percent": round(data.padding_percent(), 3),
        "learning_rate": section.learning_rate,
        "images": {
            str(scale): sum(one.scale == scale for one in samples) for scale in section.scales
        },
        "images_per_class": {
            label: sum(one.label == label for one in samples) for label in CLASSES
        },
        "images_left_out": data.left_out,
        "images_held_out": data.held_out_captions,
        "validation_images": len(data.held_out),
    }


def _write_curve(rows: Sequence[Mapping[str, float]], names: Sequence[str], path: Path) -> None:
    lines = [",".join(_number(row[name]) for name in names) for row in rows if names[-1] in row]
    write_text(path, "\n".join([",".join(names), *lines]) + "\n")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.8g}"
