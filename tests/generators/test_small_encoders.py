"""The benchmark's autoencoder and CLIP are such as `finetune.vap` opens."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dermaflux.generators.data import autoencoder
from dermaflux.generators.tiny_flux.training import caption
from dermaflux.generators.vap.model import text
from dermaflux.phantom import draw, render


def test_a_training_opens_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import small_encoders

    lesions = [draw(index, "test") for index in range(28)]
    pixels = torch.from_numpy(np.stack([render(each, 128, 128) for each in lesions]))
    captions = [caption(each) for each in lesions]
    read = (pixels.permute(0, 3, 1, 2).contiguous(), captions)
    monkeypatch.setattr(small_encoders, "training_images", lambda *_: read)
    monkeypatch.setattr(small_encoders, "JUDGED", 12)
    arguments = ["--output", str(tmp_path), "--decoder-steps", "2", "--clip-steps", "2"]
    monkeypatch.setattr(sys, "argv", ["small_encoders.py", *arguments])
    small_encoders.main()
    assert "asymmetry: Spearman's rho" in capsys.readouterr().out

    saved = autoencoder.reference(str(tmp_path / "autoencoder"), None, tmp_path, "vap")
    vae = autoencoder.load(saved, torch.device("cpu"))
    assert (vae.config.latent_channels, len(vae.config.block_out_channels)) == (4, 4)
    tower = text.load(text.reference(str(tmp_path / "clip"), None, tmp_path), torch.device("cpu"))
    counts = tower.counts(captions[:16])
    assert tower.tokens == max(counts)
    states = tower(captions[:2])
    assert states.shape == (2, tower.tokens, small_encoders.TEXT_WIDTH)
    assert not torch.equal(states[0], states[1])
