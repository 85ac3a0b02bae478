"""A killed training never continues under edited code."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_generator import FINETUNE, LORA, RUNTIME, Workspace

import dermaflux

# Every training is a process, forked from one that has loaded the libraries and trained nothing.
_SCRIPT = """
import dataclasses, os, pickle, shutil, signal, sys
from pathlib import Path
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from peft.utils import get_peft_model_state_dict
from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel
from dermaflux.generators.finetune import finetune
from dermaflux.generators.flux_lora.training import trainer
from dermaflux.tracking.runs import Silent

package, file, *edits = map(Path, sys.argv[1:])
checkpoints, kept = Path(".dermaflux/checkpoints"), package.with_name("kept")

def train(name, fatal):
    class Counting(Silent):
        def metrics(self, values, step):
            if "loss" in values:
                print(name, "step", step, flush=True)
                if step == fatal:
                    os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        run = dataclasses.replace(pickle.loads(file.read_bytes()), log=Counting())
        finetune("flux_lora", run, Path("edited", name))
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == (-signal.SIGKILL if fatal else 0), status

train("killed", 3)
shutil.copytree(checkpoints, kept)
for number, edited in enumerate(edits):
    shutil.rmtree(checkpoints)
    shutil.copytree(kept, checkpoints)
    source = package / edited
    written = source.read_bytes()
    source.write_bytes(written + b"# edited\\n")
    train(f"{number}", None)
    source.write_bytes(written)
"""
FIRST_STEPS = {
    "generators/flux_lora/training/objective.py": 1,
    "core/seeds.py": 1,
    "audit/audit.py": 3,  # has no part in the stage
}


@pytest.mark.slow
def test_edited_code_of_the_stage_starts_anew(here: Workspace, tmp_path: Path) -> None:
    shutil.rmtree(here.root / ".dermaflux" / "checkpoints", ignore_errors=True)
    package = tmp_path / "dermaflux"
    shutil.copytree(Path(dermaflux.__file__).parent, package)
    file = tmp_path / "run.pickle"
    run = here.training_run(
        settings=LORA.model_copy(update={"steps": 4}),
        section=FINETUNE.model_copy(update={"scales": [128], "maximum_images": 4}),
        runtime=RUNTIME.model_copy(update={"checkpoint_steps": 1}),
    )
    file.write_bytes(pickle.dumps(run))
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(package), str(file), *FIRST_STEPS],
        cwd=here.root, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]

    def steps(name: str) -> list[int]:
        return [int(words[2]) for words in lines if words[:2] == [name, "step"]]

    assert steps("killed") == [1, 2, 3]
    for number, (edited, first) in enumerate(FIRST_STEPS.items()):
        assert steps(f"{number}") == list(range(first, 5)), edited
