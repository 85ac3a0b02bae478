"""How this generator comes to be: a LoRA trained on the backbone, or a finished one imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dermaflux.captions.text import lengths
from dermaflux.core.devices import device_name
from dermaflux.core.seeds import derived_seed
from dermaflux.core.torch_compile import compile_blocks
from dermaflux.generators.data.latents import Latents
from dermaflux.generators.flux_lora.files import imported
from dermaflux.generators.flux_lora.model import lora, pipeline
from dermaflux.generators.flux_lora.model.flops import FluxShape, LoraShape
from dermaflux.generators.flux_lora.model.prompt_padding import (
    ResidentText,
    TextSource,
    text_lengths,
)
from dermaflux.generators.flux_lora.settings import Finetune
from dermaflux.generators.flux_lora.training import memory_plan, sharding, shown
from dermaflux.generators.flux_lora.training.checkpointing import recompute
from dermaflux.generators.flux_lora.training.data import TrainingData, arrange
from dermaflux.generators.flux_lora.training.text_cache import cache_text
from dermaflux.generators.flux_lora.training.train import Inputs, LoraTraining
from dermaflux.generators.protocol import Facts, Need, Trainer, TrainingRun
from dermaflux.params.fields import GeneratorSettings

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import FluxPipeline

    from dermaflux.generators.data.images import TrainingImages


class FluxLoraTrainer:
    """The entry `training.trainer` of this generator."""

    needs: frozenset[Need] = frozenset({"captions", "backbone"})

    def trains(self, settings: GeneratorSettings) -> bool:
        """Whether no finished LoRA is imported."""
        return _settings(settings).imported is None

    def install(self, run: TrainingRun, folder: Path) -> Facts:
        """Import the finished LoRA."""
        return imported.write(_settings(run.settings), run.backbone, folder, run.log)

    def prepare(self, run: TrainingRun, images: TrainingImages) -> LoraTraining:
        """The backbone with a fresh adapter, or why it does not fit, in one `InputError`."""
        settings, processes = _settings(run.settings), run.processes
        sharding.check(settings, processes)
        identity = pipeline.reference(run.backbone).identity
        data = arrange(settings, run.seed, images, pipeline.tokenizers(run.backbone))
        data.order.share(0, processes.rank, processes.world)
        recomputed = _planned_recomputation(run, settings, data)
        if processes.main:
            _announce(run, data)
        text = _cached_text(run, settings, identity, data)
        pipe, weights = _model(run, settings, len(data.order.shapes), recomputed)
        everything = [*data.samples, *data.held_out]
        latents = Latents(
            pipe.vae, run.corpus, everything, processes.rank, processes.world, processes.wait
        )
        inputs = Inputs(pipe, weights, data, latents, text or ResidentText(pipe))
        return LoraTraining(run, settings, inputs, identity)


TRAINER: Trainer = FluxLoraTrainer()


def _settings(settings: GeneratorSettings) -> Finetune:
    assert isinstance(settings, Finetune)
    return settings


def _planned_recomputation(run: TrainingRun, settings: Finetune, data: TrainingData) -> int:
    """Print what memory the run will take, before anything is loaded; blocks to recompute.

    Raises `InputError` when it does not fit this process's device.
    """
    parts = pipeline.on_meta(run.backbone)
    model: Any = parts["transformer"]
    shapes = data.order.shapes.items()
    training = memory_plan.Training(
        base_dtype=settings.base_dtype,
        adapter=LoraShape(settings.rank, settings.targets),
        trainable=lora.count(model, settings.targets, settings.rank),
        ema=settings.ema_decay is not None,
        text_cache=run.runtime.text_cache,
        checkpointing=run.runtime.gradient_checkpointing,
        batches=memory_plan.batches(
            ((bucket.image_tokens, bucket.text_tokens), images) for bucket, images in shapes
        ),
        processes=run.processes.world,
        sharded=run.processes.sharded,
    )
    plan = memory_plan.plan(parts, FluxShape.of(model.config), training, run.processes.device)
    if run.processes.main:
        print(f"{'device':<34}{device_name(run.processes.device):>13}\n{plan.table()}", flush=True)
    return plan.recomputed


def _announce(run: TrainingRun, data: TrainingData) -> None:
    """Print what the captions are like, before anything is loaded."""
    tokens = data.lengths()
    print(lengths.bar_chart(tokens), flush=True)
    if (warning := data.clip.warning([sample.image_id for sample in data.samples])) is not None:
        print(warning, flush=True)
    quantiles = {name: tokens[name] for name in ("median", "p95", "p99", "longest", "cut")}
    run.log.metrics({f"caption_tokens_{name}": float(n) for name, n in quantiles.items()}, 0)


def _cached_text(
    run: TrainingRun, settings: Finetune, identity: str, data: TrainingData
) -> TextSource | None:
    """All captions encoded on disk, when the text encoders shall not stay on the device."""
    if not run.runtime.text_cache:
        return None
    device, processes = run.processes.device, run.processes
    captions = [sample.caption for sample in [*data.samples, *data.held_out]]
    tokens = [bucket.text_tokens for bucket in data.buckets + data.held_out_buckets]
    if run.synthesize is not None:
        conditions = shown.of_pool(data.samples, run.synthesize, run.seed)
        prompts = [condition.prompt for condition in conditions]
        captions += prompts
        tokens += text_lengths(
            pipeline.tokenizers(run.backbone)[1], prompts, settings.prompt_padding
        )
    return cache_text(
        lambda: pipeline.load(run.backbone, settings.base_dtype, device, pipeline.TEXT_PARTS),
        f"{identity}/{settings.base_dtype}",
        captions,
        tokens,
        device,
        processes.rank,
        processes.world,
        processes.wait,
    )


def _model(
    run: TrainingRun, settings: Finetune, shapes: int, recomputed: int
) -> tuple[FluxPipeline, dict[str, nn.Parameter]]:
    """The pipeline on this process's device, with a fresh adapter in its transformer."""
    processes = run.processes
    # A base that will be sharded stays in CPU memory until each process takes its part.
    device = torch.device("cpu") if processes.sharded else processes.device
    parts = pipeline.IMAGE_PARTS if run.runtime.text_cache else pipeline.PARTS
    pipe = pipeline.load(run.backbone, settings.base_dtype, device, parts)
    model = pipe.transformer
    weights = lora.add(
        model, settings.targets, settings.rank, settings.alpha, derived_seed(run.seed, "adapter")
    )
    recompute(model, recomputed)
    if settings.compile:
        compile_blocks(model, shapes)
    if processes.sharded:
        sharding.shard(model, weights.values(), processes)
        for part in (pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
            if part is not None:
                part.to(processes.device)
    return pipe, weights
