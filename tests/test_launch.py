from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from dermaflux import cli, launch
from dermaflux.classifiers import pretrain
from dermaflux.errors import InputError
from dermaflux.params import load


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("--num_procesess 2 --bogus", "is not an option|unrecognized|ambiguous|required"),
        ("--num_processes two", "invalid int value: 'two'"),
        ("--config_file 'unclosed", "No closing quotation"),
        ("--cpu --num_processes 2", "--cpu starts one process"),
        ("--use_fsdp --multi_gpu --num_processes 2", "only use one of"),
        ("--config_file nowhere.yaml", "nowhere.yaml"),
    ],
)
def test_arguments_that_accelerate_refuses_end_in_one_sentence(
    arguments: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(InputError, match=reason) as caught:
        launch.launch(arguments, "finetune")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"accelerate is {arguments!r}")


@pytest.mark.parametrize(("recipe", "processes"), [("supervised", 1), ("mae", 2)])
def test_one_process_says_that_a_recipe_does_not_pre_train(
    recipe: str, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = load.read(Path(__file__).parents[1] / "params.yaml")
    architecture = "vit_mae" if recipe == "mae" else "vit"
    raw["train"] |= {"recipe": recipe, "architectures": [architecture]}
    raw["promote"]["architecture"] = architecture
    raw["runtime"]["accelerate"] = "--num_processes 2"
    begun = list[int]()
    monkeypatch.setattr(load, "load", lambda: load.parse(raw))
    monkeypatch.setattr(launch, "launched", lambda: False)
    monkeypatch.setattr(launch, "launch", lambda *_: begun.append(2))
    monkeypatch.setattr(pretrain, "run", lambda _: begun.append(1))
    with contextlib.suppress(SystemExit):
        cli._stage("classifiers", "pretrain")()
    assert begun == [processes]


def test_a_process_of_a_launch_does_not_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    assert not launch.launched()
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert launch.launched()
