"""The training loop: its repeatability, and what survives a kill."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import recipe_runs as runs
import torch
import toy_corpus as toy
from recipe_runs import images

from dermaflux.classifiers.data.pixel_cache import CachedPixels
from dermaflux.classifiers.data.samples import Samples
from dermaflux.classifiers.model import network
from dermaflux.classifiers.train import loop, optimizer
from dermaflux.classifiers.train.selection import auc_of, selection
from dermaflux.core import torch_compile
from dermaflux.core.checkpoints import Checkpoint
from dermaflux.core.tensor_cache import TensorCache
from dermaflux.errors import InputError
from dermaflux.tracking.runs import Silent


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

    def run(saved: Checkpoint) -> loop.TrainingResult:
        return runs.run("supervised", saved, runs.model(architecture), epochs=4, **changes)

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
    model = runs.model().model_copy(update={"learning_rate": 1e30})
    with pytest.raises(InputError, match=r"loss is .* lower the learning rate 1e\+30 of vit_tiny"):
        runs.run("supervised", Checkpoint(tmp_path), model)


def test_each_optimiser_is_the_one_it_is_called() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    net[0].requires_grad_(False)
    settings = toy.parameters().train
    for name, kind in (
        ("adamw", torch.optim.AdamW),
        ("adam", torch.optim.Adam),
        ("sgd", torch.optim.SGD),
    ):
        changed = settings.model_copy(update={"optimizer": name, "weight_decay": 0.3})
        made = optimizer.create(changed, net, 0.1)
        assert type(made) is kind
        biases, matrices = made.param_groups
        assert (matrices["weight_decay"], biases["weight_decay"]) == (0.3, 0.0)
        # Of the second layer alone.
        assert [len(group["params"]) for group in made.param_groups] == [1, 1]
        assert matrices.get("momentum", 0.9) == 0.9


@pytest.mark.slow
def test_a_compiled_run_ends_with_the_weights_of_a_plain_one(tmp_path) -> None:

    def run(compile: bool) -> loop.TrainingResult:
        folder = tmp_path / str(compile)
        folder.mkdir()
        return runs.run(
            "supervised", Checkpoint(folder), runs.settings().models["vit"], compile=compile
        )

    plain, quick = run(False), run(True)
    assert list(quick.weights) == list(plain.weights)
    for name, weight in plain.weights.items():
        assert torch.allclose(quick.weights[name], weight, atol=2e-4), name
    assert quick.validation == pytest.approx(plain.validation, abs=1e-3)


def test_without_a_compiler_a_sentence_replaces_the_compilation(monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch_compile.shutil, "which", lambda name: None)
    net = torch.nn.Linear(2, 1)
    assert torch_compile.compiled_forward(net) is net
    assert "no C++ compiler" in capsys.readouterr().out


def test_epochs_are_compared_on_a_share_of_each_class_and_the_kept_one_scored_on_all(
    tmp_path,
) -> None:
    labels = np.array([1] * 30 + [0] * 970)
    chosen = selection(labels, 100)
    assert list(chosen) == sorted(set(chosen))
    assert [int((labels[chosen] == label).sum()) for label in (0, 1)] == [97, 3]
    for limit in (None, 1000):
        assert list(selection(labels, limit)) == [*range(1000)]

    validation, model = images(20, 1), runs.model()
    result = runs.run("supervised", Checkpoint(tmp_path), model, epochs=3, selection_images=10)
    config = runs.config(model)
    net = network.build(config)
    net.load_state_dict(result.weights)
    expected = network.probabilities(net, config, validation.pixels)
    assert result.validation == pytest.approx(expected, abs=1e-6)
    few = selection(validation.labels, 10)
    assert auc_of(validation.labels[few], expected[few]) == result.validation_auc


class MeanColour:
    """A recipe without scores: regresses the label on the mean colour, notes memory as it goes."""

    def __init__(self) -> None:
        self.memory = 0

    def build(self, start: Path | None) -> torch.nn.Module:
        return torch.nn.Linear(3, 1)

    def augment(self, batch: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        return batch

    def loss(self, net, batch: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.memory = max(self.memory, private_memory())
        return (net(batch.mean(dim=(2, 3))).squeeze(1) - labels).square().mean()

    def scores(self, net: torch.nn.Module, pixels) -> None:
        for first in range(0, len(pixels), 64):
            network.read(pixels, slice(first, first + 64))
            self.memory = max(self.memory, private_memory())


def private_memory() -> int:
    """Resident bytes of this process that are no mapped file: what the system cannot take back."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def test_without_scores_the_last_epoch_is_the_result(tmp_path) -> None:
    result = loop.fit(
        MeanColour(),
        runs.model(),
        runs.settings(epochs=3),
        images(40, 0),
        images(20, 1),
        0,
        Checkpoint(tmp_path),
        Silent(),
    )
    assert (result.epoch, result.validation) == (3, None)
    assert list(result.history[0]) == ["epoch", "loss", "learning_rate"]
    again = loop.recall(Checkpoint(tmp_path))
    assert again is not None
    assert torch.equal(again.weights["weight"], result.weights["weight"])


def cached(folder: Path, count: int, side: int = 64) -> Samples:
    """Random images that are in a pixel cache and nowhere else."""
    cache = TensorCache(folder, shard_bytes=4_000_000)
    keys = [number.to_bytes(32, "big") for number in range(count)]
    generator = torch.Generator().manual_seed(0)
    with cache.writer() as writer:
        for key in keys:
            shape = (side, side, 3)
            pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
            writer.add(key, {"pixels": pixels, "checksum": torch.tensor(0)})
    names = [f"toy/{number}" for number in range(count)]
    return Samples(names, np.arange(count) % 2, CachedPixels(cache, keys, side))


def test_memory_does_not_grow_with_the_number_of_images(tmp_path) -> None:
    peaks = []
    for number, count in enumerate((500, 1_000, 8_000)):  # 12 and 98 MB after a first to warm up
        samples, recipe = cached(tmp_path / str(count), count), MeanColour()
        (tmp_path / f"checkpoint-{number}").mkdir()
        saved = Checkpoint(tmp_path / f"checkpoint-{number}")
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not hide what is taken now
        before = private_memory()
        settings = runs.settings(epochs=1, batch=32)
        loop.fit(recipe, runs.model(), settings, samples, samples, 0, saved, Silent())
        peaks.append(recipe.memory - before)
    assert peaks[2] - peaks[1] < 30e6, f"{peaks[2] / 1e6:.0f} MB beside {peaks[1] / 1e6:.0f}"


_CELL = """
import toy_corpus as toy
from dermaflux.classifiers import train
from dermaflux.classifiers.train import loop
import sys
loop._SAVING_SHARE = 1.0
parameters = toy.parameters()
settings = parameters.train.model_copy(update={"epochs": 60})
from dermaflux.validation import mixture_gate
run = parameters.model_copy(update={"train": settings})
train.run(run, "vit", 0, mixture_gate.check)
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
