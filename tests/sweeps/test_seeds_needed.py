"""What `dermaflux queue` says of the seeds that a small gain takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dermaflux.params import load
from dermaflux.statistics import evaluations, power, seed_means
from dermaflux.statistics.evaluations import Cell
from dermaflux.statistics.seed_means import SeedMean
from dermaflux.sweeps import seeds_needed

PARAMS = load.load(Path(__file__).parents[2] / "params.yaml")


def test_cells_at_hand_are_the_pilot(monkeypatch: pytest.MonkeyPatch) -> None:
    draw, means = np.random.default_rng(0), {}
    for architecture, spread, over_images in (("vit", 0.01, 1e-4), ("resnext", 0.01, 0.1)):
        for arm, shift in (("real", 0.0), ("mixture", 0.01)):
            values = 0.8 + shift + spread * np.array([-1.0, 0.0, 1.0]) * (1 if shift else -1)
            each = values[:, None] + draw.normal(0, over_images, (1, 400))
            means[architecture, arm] = {"auc": SeedMean(values, each.mean(axis=0), each)}
    monkeypatch.setattr(evaluations, "load", lambda _: [Cell("vit", 0, {}, {"images": 472})])
    monkeypatch.setattr(seed_means, "means", lambda *_: means)
    vit, resnext = seeds_needed.lines(PARAMS, 60.0)
    criterion = power.Criterion(PARAMS.evaluate.confidence, 2)
    seeds = power.seeds_needed(0.02, 0.02**2, 2e-8, criterion).seeds
    assert seeds is not None
    assert vit == f"  vit: a gain of 0.02 takes {seeds} seeds, about {seeds} min for the grid"
    assert resnext.startswith("  resnext: a gain of 0.02 cannot be seen: 100 seeds on these test")


def test_without_cells_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (line,) = seeds_needed.lines(PARAMS, 60.0)
    assert "is not known: the cells of params.yaml" in line
