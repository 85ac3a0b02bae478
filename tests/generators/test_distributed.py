"""Several real processes, started by accelerate, against one."""

from __future__ import annotations

import csv
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from small_generator import FINETUNE, LORA, RUNTIME, Workspace

from dermaflux.generators import finetune as stage
from dermaflux.generators.flux_lora.model import lora
from dermaflux.generators.protocol import FACTS
from dermaflux.tracking import runs
from dermaflux.tracking.runs import Silent

ROOT = Path(__file__).parents[2]
TWO = ("--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no")
QUIET = ("--dynamo_backend", "no")

SCRIPT = """
import dataclasses, os, pickle, signal, sys
from pathlib import Path
from dermaflux.generators.flux_lora.training import sharding
from dermaflux.generators.finetune import finetune
from dermaflux.tracking.runs import Silent
from dermaflux.core.distributed import join

class Fatal(Silent):
    def metrics(self, values, step):
        if "loss" in values and step == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

def measured(transformer, adapter, processes, shard=sharding.shard):
    whole = sum(p.numel() for p in transformer.parameters())
    shard(transformer, adapter, processes)
    part = sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in transformer.parameters())
    print(f"rank {processes.rank} stores {part / whole:.3f}", flush=True)

sharding.shard = measured
run = pickle.loads(Path(sys.argv[1]).read_bytes())
finetune("flux_lora", dataclasses.replace(run, log=Fatal(), processes=join()), Path(sys.argv[2]))
"""

NOT_FINITE = """
import torch
from dermaflux import cli
from dermaflux.core.checkpoints import checkpoint
from dermaflux.training.fit import fit
from dermaflux.training.protocol import FunctionObjective, Step
from dermaflux.training.state import Settings
from dermaflux.core.distributed import join
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
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace.root)
        patch.delenv("DVC_ROOT", raising=False)
        folder = workspace.train("one", grid="one.png")
    torch.set_num_threads(threads)
    return folder


def pickled(here: Workspace, **changes: Any) -> Path:
    """A training run in a file, for processes that start from nothing."""
    file = here.root / "run.pickle"
    file.write_bytes(pickle.dumps(here.training_run(**changes)))
    return file


def assert_same(folder: Path, reference: Path) -> None:
    for name in (stage.CURVE, stage.VALIDATION):
        rows, expected = (
            [[float(value) for value in row] for row in list(csv.reader(file.open()))[1:]]
            for file in (folder / name, reference / name)
        )
        torch.testing.assert_close(torch.tensor(rows), torch.tensor(expected), rtol=1e-5, atol=1e-7)
    facts, expected_facts = (json.loads((path / FACTS).read_text()) for path in (folder, reference))
    assert facts.keys() == expected_facts.keys()
    for key, value in facts.items():
        expected = expected_facts[key]
        same = pytest.approx(expected, rel=1e-5) if isinstance(expected, float) else expected
        assert value == same, key
    weights, wanted = (load_file(path / lora.WEIGHTS) for path in (folder, reference))
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
    section = FINETUNE.model_copy(update={"flux_lora": LORA})
    raw["finetune"] = section.chosen("flux_lora")
    raw["backbone"]["repository"] = "tiny"
    raw["runtime"] |= {"finetune": RUNTIME.model_dump(), "accelerate": "--num_processes 2"}
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
    (logged,) = client.search_runs([runs.experiment_id(client, "generator")])
    assert logged.info.status == "FINISHED"
    assert logged.data.params["processes"] == "2"
    assert {"loss", "validation_loss", "images_per_second", "mfu_percent"} <= set(
        logged.data.metrics
    )
    assert any(name.startswith("system/cpu") for name in logged.data.metrics)


@pytest.mark.slow
def test_a_sharded_base_reproduces_a_whole_one(here: Workspace, one_process: Path) -> None:
    """FSDP, recomputation and a grid in the middle change nothing but the memory."""
    runtime = RUNTIME.model_copy(update={"gradient_checkpointing": "full", "grid_steps": 2})
    options = ("--use_fsdp", "--fsdp_version", "2")
    run = pickled(here, runtime=runtime, grid="sharded.png")
    arguments = (str(run), "sharded", "-1")
    code, output = launch(here.root, SCRIPT, *arguments, options=options)
    assert code == 0, output
    shares = [float(line.split()[-1]) for line in output.splitlines() if " stores " in line]
    assert len(shares) == 2, output
    assert all(share < 0.53 for share in shares)
    assert_same(here.root / "sharded", one_process)
    assert (here.root / "sharded.png").read_bytes() == (here.root / "one.png").read_bytes()


@pytest.mark.slow
def test_a_checkpoint_of_two_processes_is_continued_by_one(
    here: Workspace, one_process: Path
) -> None:
    step = random.SystemRandom().randint(3, 5)
    print(f"killed at step {step}")
    settings = LORA.model_copy(update={"warmup_steps": 0})
    run = pickled(here, settings=settings, grid="continued.png")
    arguments = (str(run), "continued", str(step))
    code, output = launch(here.root, SCRIPT, *arguments, options=("--multi_gpu",))
    assert code != 0
    assert not (here.root / "continued").exists(), output
    steps = []

    class Counting(Silent):
        def metrics(self, values, step):  # type: ignore[no-untyped-def]
            if "loss" in values:
                steps.append(step)

    def single(name: str, log: Silent) -> Path:
        return here.train(name, settings=settings, grid=f"{name}.png", log=log)

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
