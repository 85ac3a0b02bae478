from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from small_generator import Workspace, corpus_row, write_corpus

from dermaflux.core import table
from dermaflux.core.hashing import sha256
from dermaflux.core.seeds import generator
from dermaflux.errors import InputError
from dermaflux.generators.data import latents
from dermaflux.generators.data.images import Sample, captioned, select
from dermaflux.generators.data.latents import Latents
from dermaflux.generators.flux_lora.model import pipeline

ROWS = [corpus_row(index, 256 if index % 4 == 3 else 128) for index in range(7)]


@pytest.fixture(scope="module")
def vae(workspace: Workspace):
    return pipeline.load(workspace.backbone, "fp32", torch.device("cpu")).vae


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout without a cache as working directory."""
    (tmp_path / ".dvc").mkdir()
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def corpus_of(folder: Path, rows) -> tuple[Path, list[Sample]]:
    corpus, captions = write_corpus(folder, rows)
    return corpus, select(captioned(corpus, captions), [128, 256], 0, 0)


def drawn(source: Latents, samples: list[Sample], step: int = 0) -> dict[str, torch.Tensor]:
    return {
        one.image_id: source.draw([one], [generator("latents", step, one.image_id)])[0]
        for one in samples
    }


def test_a_latent_belongs_to_the_image_and_its_caption_never_to_a_place(
    vae, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, samples = corpus_of(empty / "forward", ROWS)
    first = drawn(Latents(vae, corpus, samples), samples)
    # The same images in another order, without two of them and with a new one, over a full cache.
    changed = [*ROWS[:1:-1], corpus_row(11, 128)]
    other, fewer = corpus_of(empty / "backward", changed)
    again = drawn(Latents(vae, other, fewer[::-1]), fewer)
    captions = {row["image_id"]: caption for row, caption in changed}
    for one in fewer:
        assert one.caption == captions[one.image_id]
        if one.image_id in first:
            assert torch.equal(again[one.image_id], first[one.image_id])
    # Second route: encode each picture alone with the autoencoder itself.
    config = vae.config
    for one in samples:
        pixels = table.pixels(corpus, [one.image_id])[one.image_id]
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            posterior = vae.encode(image).latent_dist
        noise = torch.randn(
            posterior.mean.shape[1:], generator=generator("latents", 0, one.image_id)
        )
        expected = posterior.mean[0] + posterior.std[0] * noise
        expected = (expected - config.shift_factor) * config.scaling_factor
        torch.testing.assert_close(first[one.image_id], expected, atol=1e-5, rtol=1e-5)
    # Pictures that change names take their latents with them.
    names = [row["image_id"] for row, _ in ROWS]
    turned = zip(ROWS, names[1:] + names[:1], strict=True)
    third, renamed = corpus_of(
        empty / "turned", [(row | {"image_id": name}, caption) for (row, caption), name in turned]
    )
    found, original = Latents(vae, third, renamed), {one.sha256: one.image_id for one in samples}
    for one in renamed:
        name = original[one.sha256]
        assert name != one.image_id
        assert torch.equal(found.draw([one], [generator("latents", 0, name)])[0], first[name])
    # How many are encoded together leaves no trace.
    shutil.rmtree(latents.cache_folder(vae))
    alone = drawn(Latents(vae, corpus, samples[2:3]), samples[2:3])
    assert all(torch.equal(value, first[name]) for name, value in alone.items())


def test_each_step_draws_afresh_around_the_same_mean(vae, empty: Path) -> None:
    corpus, samples = corpus_of(empty, ROWS)
    source = Latents(vae, corpus, samples)
    one = next(sample for sample in samples if sample.scale == 128)
    draws = [generator("fresh", step) for step in range(400)]
    many = source.draw([one] * 400, draws)
    assert many.shape == (400, 16, 16, 16)
    moments = source._cache.read([latents._key(one)])
    expected = (moments["mean"][0] - vae.config.shift_factor) * vae.config.scaling_factor
    spread = moments["std"][0] * vae.config.scaling_factor
    assert float(((many.mean(0) - expected) / spread).abs().max()) < 5 / 400**0.5
    assert float((many.std(0) / spread).mean()) == pytest.approx(1, abs=0.01)
    batch = source.draw([one] * 2, [generator("a"), generator("b")])
    assert torch.equal(batch[1], source.draw([one], [generator("b")])[0])


def test_what_was_encoded_is_not_encoded_again_and_processes_share_the_work(
    vae, empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, samples = corpus_of(empty, ROWS)
    encoded = []
    posterior = latents.posterior

    def counting(model, pictures):
        encoded.extend(pictures)
        return posterior(model, pictures)

    monkeypatch.setattr(latents, "posterior", counting)
    barrier, found = threading.Barrier(2), {}

    def process(rank: int) -> None:
        found[rank] = Latents(vae, corpus, samples, rank, 2, lambda: barrier.wait(60))

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(encoded) == len(samples)
    assert "7 of 7 images to encode" in capsys.readouterr().out
    shared = drawn(found[0], samples)
    again = Latents(vae, corpus, samples)
    assert len(encoded) == len(samples)
    for image_id, value in drawn(again, samples).items():
        assert torch.equal(value, shared[image_id])
    # A machine that sees no other's disk ends with everything too.
    shutil.rmtree(other := latents.cache_folder(vae))
    for image_id, value in drawn(Latents(vae, corpus, samples, 1, 2), samples).items():
        assert torch.equal(value, shared[image_id])
    vae_bf16 = type(vae).from_config(vae.config).to(torch.bfloat16)
    assert latents.cache_folder(vae_bf16) != other
    assert other.is_relative_to(empty / ".dermaflux" / "cache")


def test_a_picture_that_cannot_be_decoded_is_named(vae, empty: Path) -> None:
    row, caption = ROWS[1]
    damaged = row["image"]["bytes"][:200]
    bad = {**row, "image": {"bytes": damaged, "path": "x"}, "sha256": sha256(damaged)}
    corpus, samples = corpus_of(empty, [ROWS[0], (bad, caption), *ROWS[2:]])
    with pytest.raises(InputError, match="phantom/001 of the corpus cannot be decoded"):
        Latents(vae, corpus, samples)
