"""A teacher's logits: the student's view, in the teacher's own scale, computed once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import recipe_runs as runs
import torch

from dermaflux.classifiers.model import network
from dermaflux.classifiers.recipes.classification.augmentation import augment
from dermaflux.classifiers.recipes.distill import teacher
from dermaflux.core.files import write_json

PIXELS = runs.images(6, 0).pixels


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A teacher with a mean and deviation that no student has."""
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    config = runs.config(runs.model("resnext")) | {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    torch.manual_seed(3)
    (tmp_path / "teacher").mkdir()
    weights = network.build(config).state_dict()
    network.save_weights(weights, tmp_path / "teacher/model.safetensors")
    write_json(tmp_path / "teacher/config.json", config)
    return tmp_path / "teacher"


def counted(folder: Path) -> tuple[teacher.Teacher, list[int]]:
    """The teacher, and the batch sizes of its forward passes."""
    opened, batches = teacher.Teacher(folder), list[int]()
    opened.net.register_forward_hook(lambda _, inputs, __: batches.append(len(inputs[0])))
    return opened, batches


@pytest.mark.parametrize("how", ["none", "flips", "flips-colour", "strong"])
def test_a_teacher_sees_the_view_of_the_student(folder, how) -> None:
    opened, batches = counted(folder)
    teaching = teacher.teach(opened, PIXELS, how)
    images = network.unit(torch.from_numpy(PIXELS))
    before = len(batches)
    for seed in range(4):
        views = augment(images, how, torch.Generator().manual_seed(seed))
        plain = (views - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)) / torch.tensor(
            [0.4, 0.5, 0.6]
        ).view(1, 3, 1, 1)
        with torch.no_grad():
            expected = network.load(folder)[0](plain)
        logits = teaching(views)
        assert not logits.requires_grad
        assert logits.numpy() == pytest.approx(expected.numpy(), abs=1e-5)
    assert len(batches) - before == (0 if how in teacher.VIEWS else 4)


def test_what_is_cached_runs_no_teacher_and_has_the_same_bits_after_a_kill(folder) -> None:
    opened, batches = counted(folder)
    views = augment(network.unit(torch.from_numpy(PIXELS)), "flips", torch.Generator())
    whole = teacher.teach(opened, PIXELS, "flips")(views)
    assert batches == [8] * 6
    again, more = counted(folder)
    assert torch.equal(teacher.teach(again, PIXELS[::-1].copy(), "flips")(views), whole)
    assert more == []
    cache = teacher.cache_folder(torch.device("cpu"))
    for path in cache.glob("*.safetensors"):
        path.unlink()
    teacher.teach(again, PIXELS[2:3], "flips")  # all that a killed run had finished
    assert more == [8]
    assert torch.equal(teacher.teach(again, PIXELS, "flips")(views), whole)
    assert more == [8] * 6
    teacher.teach(again, PIXELS, "none")
    assert more[6:] == [1] * 6


def test_another_configuration_and_other_code_have_logits_of_their_own(folder, monkeypatch) -> None:
    config = json.loads((folder / "config.json").read_text())
    for number in range(3):
        if number == 1:
            write_json(folder / "config.json", config | {"mean": [0.3, 0.2, 0.1]})
        if number == 2:
            monkeypatch.setattr(teacher, "stage_digest", lambda stage: f"edited {stage}")
        opened, batches = counted(folder)
        teacher.teach(opened, PIXELS, "none")
        assert batches == [1] * len(PIXELS)


def test_another_teacher_has_logits_of_its_own(folder) -> None:
    views = network.unit(torch.from_numpy(PIXELS))
    first = teacher.teach(teacher.Teacher(folder), PIXELS, "none")(views)
    weights = network.build(runs.config(runs.model("resnext"))).state_dict()
    network.save_weights(weights, folder / "model.safetensors")
    opened, batches = counted(folder)
    second = teacher.teach(opened, PIXELS, "none")(views)
    assert len(batches) == len(PIXELS)
    assert not np.allclose(first, second)
