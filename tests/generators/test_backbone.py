from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_generator import TINY, Workspace

from dermaflux.errors import InputError
from dermaflux.generators import backbone
from dermaflux.generators.flux_lora.model import pipeline, prompt_padding
from dermaflux.generators.tiny_flux import autoencoder, guided, release, training
from dermaflux.params import Backbone
from dermaflux.tracking.runs import Silent


def _hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class _Stop(Silent):
    def metrics(self, values, step):  # type: ignore[no-untyped-def]
        if "flow/loss" in values and step == 2:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupted_training_ends_in_the_same_bytes(
    here: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_CHECKPOINT_STEPS", 1)
    with pytest.raises(KeyboardInterrupt):
        training.train(TINY, 0, here.root / "again", _Stop())
    training.train(TINY, 0, here.root / "again", Silent())
    assert _hashes(here.root / "again") == _hashes(here.backbone)


def test_folder_is_a_complete_flux_pipeline(here: Workspace) -> None:
    from diffusers import FluxPipeline

    pipe = FluxPipeline.from_pretrained(here.backbone)
    index = json.loads((here.backbone / pipeline.INDEX).read_text())
    assert index["_class_name"] == "FluxPipeline"
    assert pipe.transformer.config.guidance_embeds
    assert (pipe.transformer.config.in_channels, pipe.vae.config.latent_channels) == (64, 16)
    assert pipe.vae_scale_factor == 8
    assert pipe.scheduler.config.use_dynamic_shifting
    assert 2.2e6 < sum(p.numel() for p in pipe.transformer.parameters()) < 2.6e6
    for path in here.backbone.rglob("*.json"):
        assert str(here.root) not in path.read_text()


def test_captions_that_differ_in_one_word_have_different_embeddings(here: Workspace) -> None:
    pipe = pipeline.load(here.backbone, "fp32", torch.device("cpu"))
    prompts = [
        f"This is an image containing a {label} lesion. The mole shows a {degree} asymmetry."
        for label in ("benign", "malignant")
        for degree in ("slight", "notable")
    ]
    text = prompt_padding.encode(pipe, prompts, 64)
    pooled = torch.nn.functional.normalize(text.pooled, dim=1)
    likeness = (pooled @ pooled.T - 2 * torch.eye(4)).max()
    assert float(likeness) < 0.98
    assert float((text.tokens[0] - text.tokens[1]).abs().max()) > 0.5
    assert not any(
        pipe.tokenizer_2.unk_token_id in ids for ids in pipe.tokenizer_2(prompts).input_ids
    )


@pytest.mark.parametrize(("channels", "decibel"), [(16, 31), (4, 26)])
def test_the_encoder_is_linear_and_keeps_what_a_lesion_needs(channels: int, decibel: int) -> None:
    from dermaflux.phantom import draw, render

    torch.manual_seed(0)
    lesions = [render(draw(index, "test"), 128, 128) for index in range(16)]
    pixels = torch.from_numpy(np.stack(lesions)).permute(0, 3, 1, 2)
    model = autoencoder.build(pixels, 128, channels)
    mean, std = autoencoder.moments(model, pixels)
    middle = model.encode(autoencoder.unit(pixels[:2]).mean(0, keepdim=True)).latent_dist.mean
    torch.testing.assert_close(middle, mean[:2].mean(0, keepdim=True), atol=0.03, rtol=0)
    assert float(std.max()) < 0.06
    patches = autoencoder.unit(pixels).reshape(16, 3, 16, 8, 16, 8).permute(0, 2, 4, 1, 3, 5)
    rows = patches.reshape(-1, 192).numpy()
    latents = mean.permute(0, 2, 3, 1).reshape(-1, channels).numpy()
    latents = np.concatenate([latents, np.ones((len(latents), 1))], axis=1)
    solution = np.linalg.lstsq(latents, rows, rcond=None)[0]
    error = float(np.square(latents @ solution - rows).mean())
    assert 10 * np.log10(4 / error) > decibel


def test_a_poor_autoencoder_stops_before_the_flow(here: Workspace) -> None:
    strict = TINY.model_copy(update={"minimum_psnr": 60.0, "images": 8})
    with pytest.raises(InputError, match="below the backbone.tiny.minimum_psnr of 60"):
        training.train(strict, 0, here.root / "never", Silent())
    assert not (here.root / "never").exists()


def test_pins(here: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"backbone\.revision"):
        backbone.pin(Backbone(repository="black-forest-labs/FLUX.1-dev"), tmp_path / "a")
    with pytest.raises(InputError, match="has no model_index.json"):
        backbone.pin(Backbone(repository=str(tmp_path)), tmp_path / "a")
    commit = "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"
    named = Backbone(repository="black-forest-labs/FLUX.1-dev", revision=commit)
    backbone.pin(named, tmp_path / "hub")
    found = pipeline.reference(tmp_path / "hub")
    assert found.identity == f"black-forest-labs/FLUX.1-dev@{commit}"
    assert found.licence == "FLUX.1-dev non-commercial"
    copy = shutil.copytree(here.backbone, tmp_path / "copy")
    backbone.pin(Backbone(repository=str(copy), revision="main"), tmp_path / "folder")
    pipe = pipeline.load(tmp_path / "folder", "bf16", torch.device("cpu"))
    assert pipe.transformer.dtype == torch.bfloat16
    (copy / "vae" / "config.json").write_text("{}")
    with pytest.raises(InputError, match="has changed since the stage `backbone` pinned it; run"):
        pipeline.reference(tmp_path / "folder")
    with pytest.raises(InputError, match="run the stage `backbone`"):
        pipeline.reference(tmp_path / "nowhere")


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.parent.name}/{name}": weight
        for file in folder.rglob("*.safetensors")
        for name, weight in load_file(file).items()
    }


SECOND = guided.Guided(images=14, steps=2, batch=4, learning_rate=1e-3, guided=2, highest=3.0)


@pytest.mark.slow
def test_a_release_is_trained_by_its_recipe(here: Workspace, tmp_path: Path) -> None:
    work, recipe = tmp_path / "work", release.Recipe(first=TINY, second=SECOND)
    release.release(tmp_path / "released", work, Silent(), recipe)
    (work,) = work.iterdir()  # one for each recipe
    assert _hashes(work / "first") == _hashes(here.backbone)
    release.save_bf16(here.backbone, tmp_path / "halved")
    assert _hashes(work / "rounded") == _hashes(tmp_path / "halved")
    first, second = _weights(work / "rounded"), _weights(work / "second")
    changed = {name for name in first if not torch.equal(first[name].float(), second[name].float())}
    assert changed
    assert {name.split("/")[0] for name in changed} == {"transformer"}
    released = _weights(tmp_path / "released")
    assert all(torch.equal(released[name], second[name].to(torch.bfloat16)) for name in second)
    assert f"on {SECOND.images} lesions" in (tmp_path / "released" / "README.md").read_text()


class _Linear:
    """Stands for a transformer: its velocity is the mean of the text, times the guidance."""

    config = SimpleNamespace(guidance_embeds=True)

    def __call__(self, **inputs: Any) -> tuple[torch.Tensor]:
        said = inputs["encoder_hidden_states"].mean((1, 2)) * inputs["guidance"]
        return (said[:, None, None].expand_as(inputs["hidden_states"]),)


def test_targets_of_guided_images_are_shifted_by_what_the_caption_changes() -> None:
    """Against the expected squared error, worked out by hand for a linear model."""
    words = torch.tensor([0.1, -0.4, 0.7, 0.2])
    text = prompt_padding.Text(
        words[:, None, None].expand(4, 3, 5), torch.zeros(4, 2), torch.zeros(3, 3)
    )
    guidance = torch.tensor([2.0, 3.0, 1.0, 1.0])
    latents = torch.randn(4, 16, 16, 16, generator=torch.Generator().manual_seed(1))

    def loss(count: int) -> float:
        draws = torch.Generator().manual_seed(0)
        model: Any = _Linear()
        return float(guided.guided_loss(model, latents, text, guidance, count, draws))

    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([1.0 * (0.1 + 0.4), 2.0 * (-0.4 - 0.7), 0.0, 0.0])
    for count in (0, 2):
        wanted = noise - latents + (shift if count else 0 * shift)[:, None, None, None]
        error = (words * guidance)[:, None, None, None] - wanted
        assert loss(count) == pytest.approx(float(error.square().mean()), rel=1e-5)


def test_a_release_holds_the_trained_weights_rounded_to_bf16(
    here: Workspace, tmp_path: Path
) -> None:
    folder = tmp_path / "released"
    release.save_bf16(here.backbone, folder, release.Recipe(first=TINY, second=SECOND))
    trained, released = _weights(here.backbone), _weights(folder)
    assert released.keys() == trained.keys()
    for name, weight in released.items():
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, trained[name].to(torch.bfloat16))
    card = (folder / "README.md").read_text()
    assert set(re.findall(r"`([0-9a-f]{64})`", card)) == {
        hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*.safetensors")
    }
    backbone.pin(Backbone(repository=str(folder)), tmp_path / "pin")
    assert pipeline.reference(tmp_path / "pin").licence == "cc0-1.0"
    with pytest.raises(InputError, match="holds files already; name a new folder for the released"):
        backbone.release(folder)


def test_a_batch_has_one_text_length_and_every_caption_the_same_chance(here: Workspace) -> None:
    pipe = pipeline.load(here.backbone, "fp32", torch.device("cpu"))
    captions = [f"It has {'four colors, ' * count}a smooth border." for count in (0, 1, 5, 9) * 10]
    lengths = prompt_padding.text_lengths(pipe, captions, "trim")
    assert len(set(lengths)) == 3
    texts = training.Texts(pipe, captions)
    taken = torch.zeros(len(captions))
    for step in range(400):
        places, text = texts.draw(8, torch.Generator().manual_seed(step))
        assert {lengths[place] for place in places} == {text.tokens.shape[1]}
        taken.index_add_(0, places, torch.ones(8))
    # 80 expected; a batch of one length makes the four kinds vary together.
    kinds = taken.reshape(10, 4).mean(0)
    assert float((kinds / 80 - 1).abs().max()) < 0.25
    alone = prompt_padding.encode(pipe, [captions[int(places[0])]], text.tokens.shape[1])
    torch.testing.assert_close(text.tokens[:1], alone.tokens, atol=1e-5, rtol=0)
    torch.testing.assert_close(text.pooled[:1], alone.pooled, atol=1e-5, rtol=0)
