from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from dermaflux.core.checkpoints import checkpoint, fingerprint

HOLDER = """
import sys, time
from dermaflux.core.checkpoints import checkpoint
with checkpoint("train", "key") as saved:
    print("locked", flush=True)
    sys.stdin.readline()
    saved.save({"step": 5})
"""
KILLED = """
import os, signal, torch
from dermaflux.core.checkpoints import checkpoint
def killed_write(state, file):
    file.write(b"half a state")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
with checkpoint("train", "key") as saved:
    saved.save({"step": 1})
    torch.save = killed_write
    saved.save({"step": 2})
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    return tmp_path


def test_fingerprint_depends_on_every_part_and_not_on_order() -> None:
    base = fingerprint(inputs={"a": "1", "b": "2"}, steps=3)
    assert base == fingerprint(steps=3, inputs={"b": "2", "a": "1"})
    others = [
        fingerprint(inputs={"a": "1", "b": "3"}, steps=3),
        fingerprint(inputs={"a": "1", "b": "2"}, steps=4),
        fingerprint(inputs={"a": "1", "b": "2"}, steps="3"),
        fingerprint(inputs={"a": "1", "b": "2"}, steps=3, more=None),
    ]
    assert len({base, *others}) == 5


def test_state_survives_bit_for_bit_and_can_be_discarded() -> None:
    state = {
        "step": 3,
        "weights": {"w": torch.randn(4, 3, generator=torch.Generator().manual_seed(0))},
        "generator": torch.Generator().manual_seed(7).get_state(),
    }
    with checkpoint("train", "key") as saved:
        assert saved.load() is None
        saved.save(state)
    with checkpoint("train", "key") as saved:
        loaded = saved.load()
        assert loaded is not None
        assert loaded["step"] == 3
        assert torch.equal(loaded["weights"]["w"], state["weights"]["w"])
        assert torch.equal(loaded["generator"], state["generator"])
        saved.discard()
        assert saved.load() is None
    with checkpoint("train", "other") as saved:
        assert saved.load() is None


def test_a_process_killed_while_saving_leaves_the_state_before() -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], check=False)
    assert done.returncode == -9
    with checkpoint("train", "key") as saved:
        assert saved.load() == {"step": 1}


def test_nothing_but_tensors_and_plain_values_is_loaded(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with checkpoint("train", "key") as saved:
        file = root / ".dermaflux/checkpoints/train/key/state.pt"
        torch.save({"path": Path("x")}, file)
        assert saved.load() is None
        assert not file.exists()
        assert "Weights only load failed" in capsys.readouterr().out


def test_a_second_process_with_the_same_key_waits() -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    states: list[object] = []

    def second() -> None:
        with checkpoint("train", "key") as saved:
            states.append(saved.load())

    waiting = threading.Thread(target=second)
    waiting.start()
    time.sleep(0.5)
    assert states == []
    holder.communicate("\n", timeout=120)
    waiting.join(timeout=120)
    assert states == [{"step": 5}]


def test_unfinished_work_of_another_key_is_told_and_finished_work_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with checkpoint("finetune", "before") as saved:
        saved.save({"step": 1})
    with checkpoint("finetune", "before"):
        assert not capsys.readouterr().out
    with checkpoint("finetune", "after") as saved:
        assert saved.load() is None
        assert "finetune: starts anew" in capsys.readouterr().out
    with checkpoint("finetune", "before") as saved:
        saved.discard()
    with checkpoint("finetune", "again"):
        assert not capsys.readouterr().out


def test_a_state_of_another_model_changes_nothing_and_is_removed() -> None:
    model = torch.nn.Linear(3, 2)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters())
    average = weights | {"bias": torch.zeros(5)}
    with checkpoint("train", "foreign") as saved:
        for wrong in (average, weights | {"more": torch.zeros(1)}, {"bias": weights["bias"]}):
            saved.save({"weights": weights})
            assert not saved.fits(weights, weights, wrong)
            assert saved.load() is None
        saved.save({"weights": weights})
        assert not saved.load_optimizer(optimizer, {"state": {}, "param_groups": []})
        assert saved.load() is None
        assert saved.fits(weights, weights, weights)
        assert saved.load_optimizer(optimizer, optimizer.state_dict())
