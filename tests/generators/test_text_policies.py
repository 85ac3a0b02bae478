"""The comparison of text policies against single images and SciPy's paired test."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from small_generator import FINETUNE, LORA, Workspace
from typer.testing import CliRunner

from dermaflux.cli import app
from dermaflux.core.seeds import generator
from dermaflux.errors import InputError
from dermaflux.generators.data import images
from dermaflux.generators.data.latents import Latents
from dermaflux.generators.flux_lora.model import pipeline, prompt_padding
from dermaflux.generators.flux_lora.model.loss import flow_matching_loss
from dermaflux.generators.flux_lora.training import text_policies
from dermaflux.training.validation_events import TIMES


def test_losses_are_those_of_each_image_alone_with_the_same_noise(here: Workspace) -> None:
    section = FINETUNE.model_copy(update={"validation_images": 10, "scales": [128]})
    held_out = images.read(section, 0, here.corpus, here.captions).held_out
    assert len(held_out) >= 2
    pipe = pipeline.load(here.backbone, "fp32", torch.device("cpu"))
    found = text_policies.losses(pipe, held_out, LORA, 0, here.corpus, here.backbone)
    latents = Latents(pipe.vae, here.corpus, held_out)
    for padding in ("trim", "pad512"):
        (length, *_) = prompt_padding.text_lengths(pipe, [held_out[0].caption], padding)
        assert (length == 512) == (padding == "pad512")
        text = prompt_padding.encode(pipe, [held_out[0].caption], length)
        draw = generator("validation", held_out[0].image_id)
        clean = latents.draw([held_out[0]], [draw])
        noise = torch.randn(clean.shape, generator=draw)
        with torch.no_grad():
            errors = [
                float(
                    flow_matching_loss(
                        pipe.transformer, clean, noise, torch.tensor([time]), text, 1
                    )
                )
                for time in TIMES
            ]
        assert found[padding][0] == pytest.approx(np.mean(errors), rel=1e-5)
    assert found["trim"][0] != found["pad512"][0]


def test_the_interval_is_that_of_a_paired_test() -> None:
    draw = np.random.default_rng(0)
    padded = draw.normal(1, 0.3, 40)
    trim = padded + draw.normal(0.002, 0.004, 40)
    rows = text_policies.differences(
        {"trim": trim, "pad512": padded}, [128] * 25 + [512] * 14 + [256]
    )
    assert set(rows) == {"128", "512", "all"}
    expected = stats.ttest_rel(trim, padded).confidence_interval(0.95)
    assert (rows["all"].low, rows["all"].high) == pytest.approx(tuple(expected))
    assert rows["512"].trim == pytest.approx(trim[25:39].mean())
    # Every image weighs the same, whatever its size.
    assert rows["all"].pad512 == pytest.approx(padded.mean())


@pytest.mark.parametrize(
    ("shift", "spread", "sentence"),
    [(0.0, 0.001, "trim costs less"), (0.05, 0.001, "keep .* pad512"), (0.01, 0.2, "undecided")],
)
def test_the_recommendation_follows_from_the_interval(
    shift: float, spread: float, sentence: str
) -> None:
    padded = np.full(32, 1.0)
    trim = padded + shift + spread * np.tile([-1, 1], 16)
    rows = text_policies.differences({"trim": trim, "pad512": padded}, [128] * 32)
    assert re.search(sentence, text_policies.recommendation(rows["all"]))


def test_too_few_held_out_images_are_one_sentence(
    here: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[2]
    (here.root / "params.yaml").write_text(
        (root / "params.yaml").read_text().replace("backbones/tiny-flux", "tiny")
    )
    monkeypatch.chdir(here.root)
    done = CliRunner().invoke(app, ["compare-text-policies"])
    assert isinstance(done.exception, InputError)
    assert "held-out images, fewer than the 8" in str(done.exception)
