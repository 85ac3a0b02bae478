"""A killed training never continues under edited code."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_generator import LORA, RUNTIME, Workspace

import dermaflux

_SCRIPT = """
import dataclasses, os, pickle, signal, sys
from pathlib import Path
from dermaflux.generators.finetune import finetune
from dermaflux.tracking.runs import Silent

class Counting(Silent):
    def metrics(self, values, step):
        if "loss" in values:
            print("step", step, flush=True)
            if step == int(sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)

run = pickle.loads(Path(sys.argv[1]).read_bytes())
finetune("flux_lora", dataclasses.replace(run, log=Counting()), Path("edited"))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edited", "resumed_from"),
    [
        ("generators/flux_lora/training/objective.py", 1),
        ("core/seeds.py", 1),
        ("audit/fidelity.py", 3),  # has no part in the stage
    ],
)
def test_edited_code_of_the_stage_starts_anew(
    here: Workspace, tmp_path: Path, edited: str, resumed_from: int
) -> None:
    shutil.rmtree(here.root / ".dermaflux" / "checkpoints", ignore_errors=True)
    package = tmp_path / "dermaflux"
    shutil.copytree(Path(dermaflux.__file__).parent, package)
    file = tmp_path / "run.pickle"
    settings = LORA.model_copy(update={"steps": 4})
    runtime = RUNTIME.model_copy(update={"checkpoint_steps": 1})
    file.write_bytes(pickle.dumps(here.training_run(settings=settings, runtime=runtime)))

    def steps(fatal: int) -> list[int]:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, str(file), str(fatal)], cwd=here.root, text=True,
            env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == (-signal.SIGKILL if fatal else 0), done.stderr
        lines = [line.split() for line in done.stdout.splitlines()]
        return [int(words[1]) for words in lines if words[:1] == ["step"]]

    assert steps(3) == [1, 2, 3]
    with (package / edited).open("a") as source:
        source.write("# edited\n")
    assert steps(0) == list(range(resumed_from, 5))
