"""Several real processes, started by accelerate, against one."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from small_generator import FINETUNE, Workspace

from dermaflux.generators import finetune as stage
from dermaflux.generators.flux_lora.model import lora
from dermaflux.tracking import runs
from dermaflux.tracking.runs import Silent

ROOT = Path(__file__).parents[2]
TWO = ("--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no")
QUIET = ("--dynamo_backend", "no")

SCRIPT = """
import os, signal, sys
from pathlib import Path
from dermaflux.generators.flux_lora.training import sharding
from dermaflux.generators.finetune import finetune
from dermaflux.params import Finetune
from dermaflux.tracking.runs import Silent

class Fatal(Silent):
    def metrics(self, values, step):
        if "loss" in values and step == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

def measured(transformer, adapter, processes, shard=sharding.shard):
    whole = sum(p.numel() for p in transformer.parameters())
    shard(transformer, adapter, processes)
    own = sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in transformer.parameters())
    print(f"rank {processes.rank} holds {own / whole:.3f}", flush=True)

sharding.shard = measured
section = Finetune.model_validate_json(sys.argv[1])
finetune(section, 0, Path("corpus"), Path("captions"), Path("backbone"), Path(sys.argv[2]),
         Path(sys.argv[2] + ".png"), Fatal())
"""

NOT_FINITE = """
import torch
from dermaflux import cli
from dermaflux.core.checkpoints import checkpoint
from dermaflux.training.fit import fit
from dermaflux.training.protocol import FunctionObjective, Step
from dermaflux.training.state import Settings
from dermaflux.training.distributed import join
from dermaflux.tracking.runs import Silent

def work():
    processes = join()
    weight = torch.nn.Parameter(torch.ones(1))

    def step_of(step):
        scale = float("inf") if step == 1 and processes.rank == 1 else 1.0
        return [Step((weight * scale).sum(), [f"isic/{processes.rank}-{step}"])]

    settings = Settings(steps=3, learning_rate=0.1, warmup_steps=0, maximum_gradient_norm=1.0,
                        checkpoint_steps=9)
    with checkpoint("test", "two", processes.main) as saved:
        objective = FunctionObjective({"weight": weight}, step_of)
        fit("test", objective, settings, saved, Silent(), (), processes)

cli.app = work
cli.main()
"""


def environment() -> dict[str, str]:
    # One thread everywhere: the order in which threads add up would differ otherwise.
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT / "src"),
        "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1",
    }


def run(folder: Path, *command: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment(), text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=500,
    )  # fmt: skip
    return done.returncode, done.stdout


def launch(folder: Path, script: str, *arguments: str, options: tuple[str, ...]) -> tuple[int, str]:
    file = folder / "worker.py"
    file.write_text(script)
    command = ("-m", "accelerate.commands.launch", *TWO, *QUIET, *options, str(file), *arguments)
    return run(folder, *command)


@pytest.fixture(scope="module")
def one_process(workspace: Workspace) -> Path:
    """The result of one process, which every other route must reproduce."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = workspace.root / "one"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace.root)
        patch.delenv("DVC_ROOT", raising=False)
        stage.finetune(
            FINETUNE, 0, *workspace.inputs(), folder, workspace.root / "one.png", Silent()
        )
    torch.set_num_threads(threads)
    return folder


def assert_same(folder: Path, reference: Path) -> None:
    for name in (stage.CURVE, stage.VALIDATION):
        rows, expected = (
            [[float(value) for value in row] for row in list(csv.reader(file.open()))[1:]]
            for file in (folder / name, reference / name)
        )
        torch.testing.assert_close(torch.tensor(rows), torch.tensor(expected), rtol=1e-5, atol=1e-7)
    weights, wanted = (load_file(one / lora.WEIGHTS) for one in (folder, reference))
    assert weights.keys() == wanted.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, wanted[name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_two_processes_by_parameter_reproduce_one(
    here: Workspace, one_process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dermaflux finetune` starts itself twice; only one of the two writes and logs."""
    root = here.root / "by_parameter"
    (root / ".dvc").mkdir(parents=True)
    for name in ("corpus", "captions"):
        shutil.copytree(here.root / name, root / name)
    shutil.copytree(here.backbone, root / "models" / "backbone")
    raw = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    raw |= {"finetune": FINETUNE.model_dump(), "accelerate": "--num_processes 2"}
    with (root / "params.yaml").open("w") as file:
        YAML(typ="safe").dump(raw, file)
    code, output = run(root, "-m", "dermaflux", "finetune")
    assert code == 0, output
    assert_same(root / "models" / "generator", one_process)
    shown = [line for line in output.splitlines() if line.startswith("finetune 5/5: loss")]
    assert len(shown) == 1, output
    for unit in ("images/s", "tokens/s", "padding", "TFLOP/s", "MFU", "ms/step", "GiB", "left"):
        assert unit in shown[0]
    assert (root / "reports" / "finetune" / "grid.png").exists()

    monkeypatch.chdir(root)
    client = runs.connect()
    (found,) = client.search_runs([runs.experiment_id(client, "generator")])
    assert found.info.status == "FINISHED"
    assert found.data.params["processes"] == "2"
    assert {"loss", "validation_loss", "images_per_second", "mfu_percent"} <= set(
        found.data.metrics
    )
    assert any(name.startswith("system/cpu") for name in found.data.metrics)


@pytest.mark.slow
def test_a_sharded_base_reproduces_a_whole_one(here: Workspace, one_process: Path) -> None:
    """FSDP, recomputation and a grid in the middle change nothing but the memory."""
    section = FINETUNE.model_copy(update={"gradient_checkpointing": "full", "grid_steps": 2})
    options = ("--use_fsdp", "--fsdp_version", "2")
    arguments = (section.model_dump_json(), "sharded", "-1")
    code, output = launch(here.root, SCRIPT, *arguments, options=options)
    assert code == 0, output
    held = [float(line.split()[-1]) for line in output.splitlines() if " holds " in line]
    assert len(held) == 2, output
    assert all(share < 0.53 for share in held)
    assert_same(here.root / "sharded", one_process)
    assert (here.root / "sharded.png").read_bytes() == (here.root / "one.png").read_bytes()


@pytest.mark.slow
def test_a_checkpoint_of_two_processes_is_continued_by_one(
    here: Workspace, one_process: Path
) -> None:
    step = random.SystemRandom().randint(3, 5)
    print(f"killed at step {step}")
    section = FINETUNE.model_copy(update={"warmup_steps": 0})
    arguments = (section.model_dump_json(), "continued", str(step))
    code, output = launch(here.root, SCRIPT, *arguments, options=("--multi_gpu",))
    assert code != 0
    assert not (here.root / "continued").exists(), output
    steps = []

    class Counting(Silent):
        def metrics(self, values, step):  # type: ignore[no-untyped-def]
            if "loss" in values:
                steps.append(step)

    def single(name: str, log: Silent) -> Path:
        folder = here.root / name
        stage.finetune(section, 0, *here.inputs(), folder, here.root / f"{name}.png", log)
        return folder

    continued = single("continued", Counting())
    assert steps == ([3, 4, 5] if step < 5 else [5])
    assert_same(continued, single("whole", Silent()))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_process_stops_all_with_one_sentence(
    here: Workspace,
) -> None:
    started = time.monotonic()
    code, output = launch(here.root, NOT_FINITE, options=("--multi_gpu",))
    assert code != 0
    assert output.count("the loss of step 2 is inf on images isic/1-1;") == 1, output
    assert time.monotonic() - started < 200


def test_facts_do_not_depend_on_the_processes(one_process: Path) -> None:
    facts = json.loads((one_process / stage.SETTINGS).read_text())
    assert "processes" not in facts
    assert facts["text_policy"] == "trim"
