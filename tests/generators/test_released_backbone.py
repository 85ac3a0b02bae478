"""The backbone in git: what its card says is true, and it draws what it is asked for."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from dermaflux.captions.lesion.measured import Measurements, measure
from dermaflux.generators import backbone
from dermaflux.generators.flux_lora.model import pipeline
from dermaflux.generators.tiny_flux import autoencoder, release, training
from dermaflux.params import RELEASED_BACKBONE, Backbone
from dermaflux.phantom import Lesion, draw

FOLDER = Path(__file__).parents[2] / RELEASED_BACKBONE
CPU = torch.device("cpu")


def test_its_card_names_its_files_and_the_recipe() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10e6
    card = (FOLDER / "README.md").read_text()
    hashes = dict(re.findall(r"^- `([\w/.]+)`.*`([0-9a-f]{64})`$", card, re.MULTILINE))
    assert hashes == {
        path.relative_to(FOLDER).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.suffix == ".safetensors"
    }
    assert not any("_name_or_path" in path.read_text() for path in FOLDER.rglob("*.json"))
    told = " ".join(card.split())
    first, second = release.RECIPE.first, release.RECIPE.second
    for number in (first.images, first.flow_steps, second.images, second.steps):
        assert f"{number:,} " in told
    assert f"of {first.flow_batch} images at {first.flow_learning_rate:g}" in told
    assert f"of {second.batch} images at {second.learning_rate:g}" in told


def test_its_autoencoder_keeps_lesions_that_it_has_not_seen() -> None:
    pixels = training.rendered([draw(index, "test") for index in range(16)])
    vae = pipeline.load(FOLDER, "fp32", CPU, ["vae"]).vae
    assert autoencoder.psnr(vae, pixels) > 30


def test_auto_tokenizers_number_words_as_the_pipeline_does() -> None:
    from transformers import AutoTokenizer

    captions = [training.caption(draw(index, "test")) for index in range(100)]
    pipe = pipeline.load(FOLDER, "fp32", CPU, ["text_encoder", "text_encoder_2"])
    for part in ("tokenizer", "tokenizer_2"):
        ours, theirs = getattr(pipe, part), AutoTokenizer.from_pretrained(FOLDER / part)
        asked = {"padding": "max_length", "max_length": 77, "truncation": True}
        ids = ours(captions, **asked).input_ids
        assert ids == theirs(captions, **asked).input_ids
        assert len({tuple(row) for row in ids}) > 50
    words = pipe.tokenizer_2(captions).input_ids
    assert not any(pipe.tokenizer_2.unk_token_id in row for row in words)


def _levels(lesion: Lesion) -> tuple[float, ...]:
    return lesion.asymmetry, lesion.border, len(lesion.colours)


def _seen(found: Measurements) -> tuple[float, ...]:
    assert found.asymmetry is not None
    assert found.border_irregularity is not None
    assert found.colours is not None
    return found.asymmetry, found.border_irregularity, len(found.colours)


@pytest.mark.slow
def test_lesions_have_the_attributes_that_prompts_ask_for(tmp_path: Path) -> None:
    """Sampled by diffusers' own pipeline and measured from the pixels."""
    backbone.pin(Backbone(repository=str(FOLDER)), tmp_path / "pin")
    pipe = pipeline.load(tmp_path / "pin", "fp32", CPU)
    lesions = [draw(index, "test") for index in range(48)]
    captions = [training.caption(lesion) for lesion in lesions]
    lengths = training.text_lengths(pipe, captions, "trim")
    asked, seen = [], []
    for length in sorted(set(lengths)):
        places = [place for place, tokens in enumerate(lengths) if tokens == length]
        images = pipe(
            prompt=[captions[place] for place in places],
            height=training.SIDE,
            width=training.SIDE,
            num_inference_steps=20,
            guidance_scale=2.0,
            max_sequence_length=length,
            generator=torch.Generator().manual_seed(length),
            output_type="np",
        ).images
        for place, image in zip(places, images, strict=True):
            found = measure((image * 255).round().astype(np.uint8))
            if found.asymmetry is not None:
                asked.append(_levels(lesions[place]))
                seen.append(_seen(found))
    assert len(seen) > 40
    rhos = [
        spearmanr(known, measured).statistic
        for known, measured in zip(zip(*asked, strict=True), zip(*seen, strict=True), strict=True)
    ]
    assert min(rhos[1:]) > 0.5  # border and colours
    assert rhos[0] > 0.3  # asymmetry, which it learned least
