"""What every recipe of the registry promises to the training loop and to those who load it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import recipe_runs as runs
import torch
from safetensors.torch import load_file

from dermaflux.classifiers.data.arm_plan import ArmPlan
from dermaflux.classifiers.model import network
from dermaflux.classifiers.recipes import registry
from dermaflux.core.checkpoints import Checkpoint
from dermaflux.params.choices import RECIPES

SCORED = {"supervised": True, "mae": True}
"""Recipe -> whether its epochs are compared by scores. A new recipe needs an entry."""
ALL = SCORED | {"distill": True}
"""With that of the stage `distill`, which no parameter chooses."""


def test_every_recipe_is_under_this_contract() -> None:
    assert set(SCORED) == set(RECIPES)


@pytest.mark.parametrize("name", ALL)
def test_a_killed_run_ends_bit_equal_and_loads_to_the_same_scores(name: str, tmp_path) -> None:
    for folder in ("whole", "killed"):
        (tmp_path / folder).mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = str(Path(runs.__file__))
    killed = subprocess.run(
        [sys.executable, script, name, str(tmp_path / "killed")], env=environment, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    state = Checkpoint(tmp_path / "killed").load()
    assert state is not None
    assert len(state["history"]) == 1
    resumed = runs.run(name, Checkpoint(tmp_path / "killed"))
    whole = runs.run(name, Checkpoint(tmp_path / "whole"))
    assert [row["epoch"] for row in whole.history] == [1, 2]
    assert resumed.history == whole.history
    assert all(torch.equal(resumed.weights[key], whole.weights[key]) for key in whole.weights)
    assert (whole.validation is not None) == ALL[name]
    if whole.validation is None:
        assert whole.epoch == 2
        return
    assert np.array_equal(resumed.validation, whole.validation)

    described = runs.model()
    network.save_weights(whole.weights, tmp_path / "model.safetensors")
    config = json.loads(json.dumps(runs.config(described)))
    loaded = registry.create(
        "supervised" if name == "distill" else name, config, ArmPlan(np.arange(0), "none")
    )
    net = loaded.build(None)
    net.load_state_dict(load_file(tmp_path / "model.safetensors"))
    pixels = runs.images(20, 1).pixels
    assert loaded.scores(net, pixels) == pytest.approx(whole.validation, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in ALL if ALL[name]])
def test_an_image_is_scored_alike_in_any_company(name: str) -> None:
    described = runs.model("resnext")  # whose batch norm would mix a batch in training mode
    recipe = runs.recipe(name, described)
    torch.manual_seed(0)
    net = recipe.build(None)
    pixels = runs.images(9, 3).pixels
    together = recipe.scores(net, pixels)
    assert together is not None
    assert len(np.unique(together)) == 9
    alone = [recipe.scores(net.train(), pixels[index : index + 1]) for index in range(9)]
    assert np.concatenate(alone) == pytest.approx(together, abs=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_the_handed_generator_decides_the_augmentation(name: str) -> None:
    recipe = runs.recipe(name, runs.model(), "strong")
    batch = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    first, again = (recipe.augment(batch, torch.Generator().manual_seed(5)) for _ in range(2))
    assert first.shape == batch.shape
    assert torch.equal(first, again)
