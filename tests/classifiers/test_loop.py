"""The training loop: its repeatability, and what survives a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_corpus as toy

from dermaflux.classifiers import loop
from dermaflux.classifiers.data import samples
from dermaflux.classifiers.model import network as supervised
from dermaflux.core.checkpoints import Checkpoint
from dermaflux.errors import InputError
from dermaflux.tracking.runs import Silent
from dermaflux.training import torch_compile


def images(count: int, seed: int) -> samples.Samples:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 255, (count, toy.SIDE, toy.SIDE, 3), np.uint8)
    labels = (np.arange(count) % 2).astype(np.uint8)
    return samples.Samples([f"toy/{number}" for number in range(count)], labels, pixels)


class Interrupted(Checkpoint):
    """Dies after a number of saves, as a killed process would."""

    def __init__(self, folder: Path, saves: int) -> None:
        super().__init__(folder)
        self.left = saves

    def save(self, state) -> None:
        super().save(state)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [("vit", {}), ("resnext", {"optimizer": "sgd", "sampling": "balanced"})],
)
def test_a_run_that_is_interrupted_twice_ends_bit_equal(
    tmp_path, monkeypatch, architecture, changes
) -> None:
    monkeypatch.setattr(loop, "_SAVING_SHARE", 1.0)
    settings = toy.parameters().train.model_copy(update=changes)
    model = settings.models[architecture]
    options = {**model.options, "drop_path_rate": 0.1, "drop_rate": 0.1}
    model = model.model_copy(update={"options": options})
    config = supervised.configure(model, toy.SIDE)
    training, validation = images(40, 0), images(20, 1)

    def run(saved: Checkpoint) -> loop.Fitted:
        return loop.fit(config, model, settings, training, validation, 7, saved, Silent())

    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = run(Checkpoint(tmp_path / "whole"))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(Interrupted(tmp_path / "broken", saves=1))
    broken = run(Checkpoint(tmp_path / "broken"))
    assert broken.history == whole.history
    assert np.array_equal(broken.validation, whole.validation)
    assert all(torch.equal(broken.weights[name], whole.weights[name]) for name in whole.weights)
    best = max(row["validation_auc"] for row in whole.history)
    first = next(row["epoch"] for row in whole.history if row["validation_auc"] == best)
    assert (whole.epoch, whole.validation_auc) == (first, best)


def test_a_diverging_run_stops_with_the_rate_to_lower(tmp_path) -> None:
    settings = toy.parameters().train
    model = settings.models["vit"].model_copy(update={"learning_rate": 1e30})
    config = supervised.configure(model, toy.SIDE)
    with pytest.raises(InputError, match=r"loss is .* lower the learning rate 1e\+30"):
        loop.fit(
            config, model, settings, images(40, 0), images(20, 1), 0, Checkpoint(tmp_path), Silent()
        )


def test_each_optimiser_is_the_one_it_is_called() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    network[0].requires_grad_(False)
    settings = toy.parameters().train
    for name, kind in (
        ("adamw", torch.optim.AdamW),
        ("adam", torch.optim.Adam),
        ("sgd", torch.optim.SGD),
    ):
        changed = settings.model_copy(update={"optimizer": name, "weight_decay": 0.3})
        made = loop._optimizer(changed, network, 0.1)
        assert type(made) is kind
        matrices, biases = made.param_groups
        assert (matrices["weight_decay"], biases["weight_decay"]) == (0.3, 0.0)
        # Of the second layer alone.
        assert [len(group["params"]) for group in made.param_groups] == [1, 1]
        assert matrices.get("momentum", 0.9) == 0.9


@pytest.mark.slow
def test_a_compiled_run_ends_with_the_weights_of_a_plain_one(tmp_path) -> None:
    settings = toy.parameters().train
    model = settings.models["vit"]
    config = supervised.configure(model, toy.SIDE)

    def run(compile: bool) -> loop.Fitted:
        folder = tmp_path / str(compile)
        folder.mkdir()
        chosen = settings.model_copy(update={"compile": compile, "epochs": 2})
        data = images(40, 0), images(20, 1)
        return loop.fit(config, model, chosen, *data, 7, Checkpoint(folder), Silent())

    plain, quick = run(False), run(True)
    assert list(quick.weights) == list(plain.weights)
    for name, weight in plain.weights.items():
        assert torch.allclose(quick.weights[name], weight, atol=2e-4), name
    assert quick.validation == pytest.approx(plain.validation, abs=1e-3)


def test_without_a_compiler_a_sentence_replaces_the_compilation(monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch_compile.shutil, "which", lambda name: None)
    network = torch.nn.Linear(2, 1)
    assert torch_compile.compiled_forward(network) is network
    assert "no C++ compiler" in capsys.readouterr().out


def test_epochs_are_compared_on_a_share_of_each_class_and_the_kept_one_scored_on_all(
    tmp_path,
) -> None:
    labels = np.array([1] * 30 + [0] * 970)
    places = loop.selected(labels, 100)
    assert list(places) == sorted(set(places))
    assert [int((labels[places] == name).sum()) for name in (0, 1)] == [97, 3]
    assert list(loop.selected(labels, None)) == list(loop.selected(labels, 1000)) == [*range(1000)]

    settings = toy.parameters().train.model_copy(update={"selection_images": 10, "epochs": 3})
    model = settings.models["vit"]
    config = supervised.configure(model, toy.SIDE)
    validation = images(20, 1)
    found = loop.fit(
        config, model, settings, images(40, 0), validation, 0, Checkpoint(tmp_path), Silent()
    )
    network = supervised.build(config)
    network.load_state_dict(found.weights)
    expected = supervised.probabilities(network, config, validation.pixels)
    assert found.validation == pytest.approx(expected, abs=1e-6)
    few = loop.selected(validation.labels, 10)
    assert loop.auc(validation.labels[few], expected[few]) == found.validation_auc


_CELL = """
import toy_corpus as toy
from dermaflux.classifiers import loop, train
import sys
loop._SAVING_SHARE = 1.0
parameters = toy.parameters()
settings = parameters.train.model_copy(update={"epochs": 60})
train.run(parameters.model_copy(update={"train": settings}), "vit", 0)
"""


@pytest.mark.slow
def test_a_killed_cell_continues_and_ends_bit_equal(tmp_path, monkeypatch) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        "OMP_NUM_THREADS": "1",
    }

    def start(folder: Path) -> subprocess.Popen[str]:
        (folder / ".dvc").mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            [sys.executable, "-c", _CELL],
            cwd=folder,
            env={**environment, "DVC_ROOT": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        toy.write()
    assert start(tmp_path / "whole").wait(120) == 0
    process = start(tmp_path / "killed")
    checkpoints = tmp_path / "killed" / ".dermaflux" / "checkpoints"
    deadline = time.monotonic() + 100
    while not list(checkpoints.rglob("state.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait(20) == -signal.SIGKILL
    assert not (tmp_path / "killed" / "models" / "classifiers" / "vit-0").exists()
    again = start(tmp_path / "killed")
    printed = again.communicate(timeout=120)[0]
    assert again.returncode == 0
    assert "continues after epoch" in printed
    for file in sorted((tmp_path / "whole" / "models").rglob("*.*")):
        other = tmp_path / "killed" / file.relative_to(tmp_path / "whole")
        assert file.is_dir() or file.read_bytes() == other.read_bytes(), file.name
