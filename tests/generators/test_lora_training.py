"""The grid and the saved adapter against the sampler that opens what was saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from small_generator import LORA, Workspace

from dermaflux.core import table
from dermaflux.core.seeds import derived_seed
from dermaflux.generators.flux_lora.model import lora
from dermaflux.generators.flux_lora.sampling.generator import GENERATOR
from dermaflux.generators.protocol import Condition


def tiles(path: Path, side: int, columns: int) -> list[np.ndarray]:
    """Images of a grid with two pixels between them, row by row."""
    sheet = np.asarray(Image.open(path)).astype(int)
    starts = range(0, sheet.shape[0], side + 2)
    return [
        sheet[top : top + side, left : left + side]
        for top in starts
        for left in range(0, columns * (side + 2), side + 2)
    ]


def test_the_grid_shows_the_saved_weights_on_the_first_captions_of_each_class(
    here: Workspace,
) -> None:
    settings = LORA.model_copy(update={"steps": 2, "learning_rate": 0.05, "warmup_steps": 0})
    folder = here.train("grid-run", settings=settings, grid="grid-run.png")
    captions = table.metadata(here.captions, ["image_id", "caption"])
    rows = table.metadata(here.corpus, split="train").merge(captions, on="image_id")
    rows = rows.sort_values("image_id")
    chosen = [
        (label, caption)
        for label in ("benign", "malignant")
        for caption in rows.loc[rows["label"] == label, "caption"][:4]
    ]
    conditions = [
        Condition(label, caption, 128, derived_seed(0, "grid", index))
        for index, (label, caption) in enumerate(chosen)
    ]
    sampler = GENERATOR.open(here.models(folder), {"steps": 20, "guidance": 1.0})
    shown = tiles(here.root / "grid-run.png", 128, 4)
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
