"""FLUX.1-dev at its real widths, three blocks deep with random weights in bf16, on the CPU.

What a run on a GPU does, in its order: pin, train, be killed by SIGKILL, continue, export, load in
diffusers, sample, sample again.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import killed_run
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_generator import LORA, RUNTIME, Workspace, corpus_row, write_corpus

from dermaflux.core import table
from dermaflux.generators import backbone, finetune, reproduce, synthesize
from dermaflux.generators.flux_lora import settings
from dermaflux.generators.flux_lora.files import exported
from dermaflux.generators.flux_lora.model import lora
from dermaflux.generators.flux_lora.model.rectified_flow import (
    BASE_SHIFT,
    BASE_TOKENS,
    MAXIMUM_SHIFT,
    MAXIMUM_TOKENS,
)
from dermaflux.generators.tiny_flux.training import vocabulary_text
from dermaflux.generators.tiny_flux.vocabulary import clip_tokenizer, t5_tokenizer
from dermaflux.params import Backbone, Finetune, Synthesize
from dermaflux.tracking.runs import Silent

SECTION = Finetune(scales=[128], validation_images=1, validation_steps=2)
TRAINING = LORA.model_copy(
    update={"steps": 2, "rank": 4, "micro_batches": 1, "batch_tokens": 128, "base_dtype": "bf16"}
)


def _drawn(module: torch.nn.Module) -> torch.nn.Module:
    module = module.to(torch.bfloat16).to_empty(device="cpu")
    # 0.02 as published models begin; norms begin at 1. Drawing 800 million numbers takes longer
    # than repeating some, whose number is a prime so that no two rows of a matrix are equal.
    numbers = torch.randn(1_048_573, dtype=torch.bfloat16) * 0.02
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                count = parameter.numel()
                repeated = numbers.repeat(math.ceil(count / len(numbers)))[:count]
                parameter.copy_(repeated.view_as(parameter))
            else:
                parameter.fill_(1.0)
    return module


def _save_pipeline(folder: Path) -> None:
    """FLUX.1-dev's configuration files but for the numbers of blocks and the vocabularies."""
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        FluxPipeline,
        FluxTransformer2DModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    words = vocabulary_text()
    clip_words, t5_words = clip_tokenizer(words), t5_tokenizer(words)
    clip = CLIPTextConfig(
        vocab_size=len(clip_words), hidden_size=768, intermediate_size=3072, num_hidden_layers=1,
        num_attention_heads=12, eos_token_id=clip_words.eos_token_id,
    )  # fmt: skip
    t5 = T5Config(
        vocab_size=len(t5_words), d_model=4096, d_kv=64, d_ff=10240, num_layers=1, num_heads=64,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_shift=BASE_SHIFT, max_shift=MAXIMUM_SHIFT,
        base_image_seq_len=BASE_TOKENS, max_image_seq_len=MAXIMUM_TOKENS,
    )  # fmt: skip
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(
            num_layers=1, num_single_layers=2, guidance_embeds=True
        )
        encoders = CLIPTextModel(clip), T5EncoderModel(t5)
        vae = AutoencoderKL(
            latent_channels=16, block_out_channels=(128, 256, 512, 512), layers_per_block=1,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1159,
            scaling_factor=0.3611,
        )  # fmt: skip
    clip_encoder, t5_encoder = map(_drawn, encoders)
    pipe: Any = FluxPipeline(
        scheduler, _drawn(vae), clip_encoder, clip_words, t5_encoder, t5_words, _drawn(transformer)
    )
    pipe.save_pretrained(folder)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = tmp_path_factory.mktemp("wide")
    (root / ".dvc").mkdir()
    rows = [corpus_row(index, 128, "validation" if index == 1 else "train") for index in (0, 1, 2)]
    corpus, captions = write_corpus(root, rows)
    _save_pipeline(root / "flux")
    backbone.pin(Backbone(repository=str(root / "flux")), root / "backbone")
    return Workspace(root, corpus, captions, root / "backbone")


class _Steps(Silent):
    """The steps whose loss is logged."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def metrics(self, values: Any, step: int) -> None:
        if "loss" in values:
            self.seen.append(step)


@pytest.mark.slow
def test_a_run_at_real_widths_from_training_to_the_same_image_again(
    wide: Workspace, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import FluxPipeline

    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(wide.root)
    runtime = RUNTIME.model_copy(update={"checkpoint_steps": 1})
    run = wide.training_run("flux_lora", TRAINING, SECTION, runtime)
    killed_run.kill("flux_lora", run, wide.root / "generator", wide.root)
    steps = _Steps()
    finetune.finetune("flux_lora", dataclasses.replace(run, log=steps), wide.root / "generator")
    assert steps.seen == [2]

    # One step from the start moves B alone; two move both, in every block.
    trained = load_file(wide.root / "generator" / lora.WEIGHTS)
    assert {name.split(".")[1] for name in trained} == {
        "transformer_blocks", "single_transformer_blocks",
    }  # fmt: skip
    assert all(bool(weight.abs().max() > 0) for weight in trained.values())

    pool = Synthesize(
        images=2, scale=128, batch=2, flux_lora=settings.Synthesize(steps=1, guidance=3.5)
    )
    models = wide.models(wide.root / "generator")
    synthesize.synthesize(
        "flux_lora", pool, 0, wide.corpus, wide.captions, models, wide.root / "synthetic", Silent()
    )
    row = table.metadata(wide.root / "synthetic").iloc[0]
    again, stored = reproduce.sample_again(row["image_id"], wide.root / "synthetic", models)
    np.testing.assert_array_equal(again, stored)

    pipe: Any = FluxPipeline.from_pretrained(wide.root / "flux", torch_dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)

    def theirs() -> np.ndarray:
        image: np.ndarray = pipe(
            row["prompt"], height=128, width=128, num_inference_steps=1, guidance_scale=3.5,
            max_sequence_length=64, output_type="np",
            generator=torch.Generator().manual_seed(int(row["seed"])),
        ).images[0]  # fmt: skip
        return np.rint(image * 255).astype(int)

    without = theirs()
    exported.export(wide.root / "kohya.safetensors", "kohya", "fp32", wide.root / "generator")
    pipe.load_lora_weights(wide.root / "kohya.safetensors")
    assert float(np.abs(theirs() - stored.astype(int)).mean()) < 1
    assert float(np.abs(without - stored.astype(int)).mean()) > 0
