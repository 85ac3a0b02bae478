from __future__ import annotations

import pytest

from dermaflux import launch
from dermaflux.errors import InputError


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


def test_a_process_of_a_launch_does_not_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    assert not launch.launched()
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert launch.launched()
