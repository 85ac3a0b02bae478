"""The grid and the saved adapter against the sampler that opens what was saved."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from small_generator import LORA, RUNTIME, Workspace

from dermaflux.core import table
from dermaflux.core.arrays import Pixels
from dermaflux.core.seeds import derived_seed
from dermaflux.generators import finetune
from dermaflux.generators.flux_lora.model import lora
from dermaflux.generators.flux_lora.sampling.generator import GENERATOR
from dermaflux.generators.flux_lora.sampling.sample import SamplingSettings
from dermaflux.generators.flux_lora.training import train
from dermaflux.generators.protocol import Condition
from dermaflux.params import Synthesize
from dermaflux.tracking.runs import Silent


def tiles(path: Path, side: int, columns: int) -> list[np.ndarray]:
    """Images of a grid with two pixels between them, row by row."""
    sheet = np.asarray(Image.open(path)).astype(int)
    starts = range(0, sheet.shape[0], side + 2)
    return [
        sheet[top : top + side, left : left + side]
        for top in starts
        for left in range(0, columns * (side + 2), side + 2)
    ]


class Sheets(Silent):
    """A `Log` that keeps what is logged as an artefact, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def artifact(self, path: Path, folder: str = "") -> None:
        shutil.copy(path, self.folder / path.name)


def test_the_grids_show_the_saved_weights_as_they_are_trained_and_as_they_will_be_sampled(
    here: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The guidance of so small a backbone changes no pixel by a whole level.
    asked_of_the_sampler: list[tuple[int, float]] = []
    unwatched = train.sample

    def watched(pipe: Any, settings: SamplingSettings, *rest: Any) -> Pixels:
        asked_of_the_sampler.append((settings.steps, settings.guidance))
        return unwatched(pipe, settings, *rest)

    monkeypatch.setattr(train, "sample", watched)
    settings = LORA.model_copy(update={"steps": 2, "learning_rate": 0.05, "warmup_steps": 0})
    # With a cache the encoders are not loaded: the prompts of the pool have to be in it, too.
    runtime = RUNTIME.model_copy(update={"text_cache": True})
    run = here.training_run(
        settings=settings, runtime=runtime, grid="grid-run.png", log=Sheets(tmp_path)
    )
    sampling = {"steps": 3, "guidance": 3.5}
    pool = Synthesize(scale=256, prompt_source="label", flux_lora=sampling)
    folder = here.root / "grid-run"
    finetune.finetune("flux_lora", dataclasses.replace(run, synthesize=pool), folder)
    assert asked_of_the_sampler == [(20, 1.0), (3, 3.5)]
    captions = table.metadata(here.captions, ["image_id", "caption"])
    rows = table.metadata(here.corpus, split="train").merge(captions, on="image_id")
    rows = rows.sort_values("image_id")
    labels = ["benign", "benign", "malignant", "malignant"]
    trained = [
        rows.loc[rows["label"] == label, "caption"].iloc[n % 2] for n, label in enumerate(labels)
    ]
    named = [f"This is an image containing a {label} lesion." for label in labels]
    for sheet, prompts, scale, asked in (
        (here.root / "grid-run.png", trained, 128, {"steps": 20, "guidance": 1.0}),
        (tmp_path / "pool-000002.png", named, 256, sampling),
    ):
        conditions = [
            Condition(label, prompt, scale, derived_seed(0, "grid", index))
            for index, (label, prompt) in enumerate(zip(labels, prompts, strict=True))
        ]
        sampler = GENERATOR.open(here.models(folder), asked)
        shown = tiles(sheet, scale, 2)
        assert len(shown) == len(conditions)
        groups = sampler.groups(conditions)
        for index in (0, len(conditions) - 1):
            members = [i for i, group in enumerate(groups) if group == groups[index]]
            image = sampler([conditions[i] for i in members])[members.index(index)]
            # The adapter is merged here and was not during training: that rounds differently.
            assert np.abs(image.astype(int) - shown[index]).max() <= 1
    # Weights as they started, with every B at zero, would show other images.
    weights = load_file(folder / lora.WEIGHTS)
    assert any(bool(value.any()) for name, value in weights.items() if "lora_B" in name)


def test_the_saved_weights_are_the_moving_average_where_there_is_one(here: Workspace) -> None:
    """One step from zero: plain B is the step, its average at decay 0.1 is 0.9 of it."""
    saved = []
    for decay in (None, 0.09):
        settings = LORA.model_copy(
            update={"steps": 1, "warmup_steps": 0, "ema_decay": decay, "learning_rate": 1e-2}
        )
        saved.append(load_file(here.train(f"ema-{decay}", settings=settings) / lora.WEIGHTS))
    plain, average = saved
    for name, value in plain.items():
        if "lora_B" in name:
            torch.testing.assert_close(average[name], 0.91 * value, rtol=1e-4, atol=1e-8)
