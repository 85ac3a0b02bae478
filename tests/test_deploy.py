"""Recipes for other machines, as far as this one can run them: syntax, references, signals."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
PRINTING = '#!/bin/sh\necho "{name} $*" >> "$LOG"\n'
COMMANDS = {
    "dvc": 'case "$*" in "repro validate backbone") python3 - ;; status*) echo changed ;; esac\n',
    "srun": "",
    "scontrol": 'case "$*" in show*) echo node1 ;; esac\n',
}


def instructions() -> list[tuple[str, str]]:
    """Keyword and text of each line of the Dockerfile, continued ones joined."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def shell_is_valid(script: str) -> bool:
    return subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_the_image_is_built_from_the_lock() -> None:
    lines = instructions()
    bases = [text for keyword, text in lines if keyword == "FROM"]
    assert bases == ["python:3.11-slim AS environment", "environment"]
    for keyword, text in lines:
        if keyword == "COPY":
            assert (ROOT / text.split()[0]).exists(), text
        if keyword == "RUN":
            assert shell_is_valid(text), text
    (install,) = [text for keyword, text in lines if keyword == "RUN" and '"$DERMAFLUX"' in text]
    assert "--constraint /opt/requirements.lock" in install
    assert re.search(r"^uv==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    build = container["build"]
    assert (ROOT / ".devcontainer" / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    assert build["target"] == bases[0].split()[-1]
    goal = container["postCreateCommand"].split()[1]
    assert f"INSTALLED := {goal}".replace(".venv", "$(VENV)") in (ROOT / "Makefile").read_text()


def test_everything_names_this_version() -> None:
    for name in ("Dockerfile", "workflow.yaml", "kubernetes.yaml"):
        named = re.findall(r"dermaflux(?:==|:)(\d[\w.]*)", (DEPLOY / name).read_text())
        assert named, name
        assert set(named) == {VERSION}, name


def test_steps_of_the_workflow_are_valid_shell() -> None:
    workflow = YAML(typ="safe").load((DEPLOY / "workflow.yaml").read_text())
    steps = workflow["jobs"]["check"]["steps"]
    scripts = [step["run"] for step in steps if "run" in step]
    assert len(scripts) >= 4
    assert all(map(shell_is_valid, scripts))
    assert workflow["permissions"] == {"contents": "read"}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubernetes_knows_every_field_of_the_job() -> None:
    file = DEPLOY / "kubernetes.yaml"
    written: dict[str, Any] = YAML(typ="safe").load(file.read_text())
    # Setting an image decodes the job into Kubernetes' own types, which drop what they do not know.
    command = ["kubectl", "set", "image", "--local", "-f", str(file), "-o", "json", "pipeline=x:1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    known = json.loads(done.stdout)
    written["spec"]["template"]["spec"]["containers"][0]["image"] = "x:1"
    assert_within(written, known, "job")


def assert_within(written: Any, known: Any, where: str) -> None:
    if isinstance(written, dict):
        for key, value in written.items():
            assert key in known, f"{where}.{key}"
            assert_within(value, known[key], f"{where}.{key}")
    elif isinstance(written, list):
        assert len(written) == len(known), where
        for index, value in enumerate(written):
            assert_within(value, known[index], f"{where}[{index}]")
    else:
        assert str(written) == str(known), where


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """Environment of a Slurm job whose commands write down how they were called.

    The first `dvc repro` is a stage that runs until a signal ends it, and says so.
    """
    stage = (
        "import os, signal, sys, time\n"
        "def end(*_):\n"
        "    time.sleep(0.5)\n"
        "    print('stage closed', file=open(os.environ['LOG'], 'a'))\n"
        "    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('stage runs', file=open(os.environ['LOG'], 'a'))\n"
        "time.sleep(60 if os.environ['LONG'] else 0)\n"
    )
    (tmp_path / "stage.py").write_text(stage)
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, rest in COMMANDS.items():
        rest = rest.replace("python3 -", f"exec python3 {tmp_path}/stage.py")
        (folder / name).write_text(PRINTING.format(name=name) + rest)
        (folder / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "LOG": str(tmp_path / "log"),
        "LONG": "",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_JOB_NODELIST": "node[1-2]",
    }


def log(job: dict[str, str]) -> list[str]:
    path = Path(job["LOG"])
    return path.read_text().splitlines() if path.exists() else []


def test_a_slurm_job_launches_a_process_per_gpu_and_records_the_stage(job: dict[str, str]) -> None:
    subprocess.run([DEPLOY / "slurm.sh"], env=job, check=True, timeout=30)
    called = [line for line in log(job) if not line.startswith(("stage", "scontrol"))]
    assert [" ".join(line.split()[:3]) for line in called] == [
        "dvc repro validate", "dvc status finetune", "srun --kill-on-bad-exit=1 bash",
        "dvc commit --force", "dvc repro selector", "dvc status synthesize",
        "srun --kill-on-bad-exit=1 bash", "dvc commit --force", "dvc repro",
    ]  # fmt: skip
    launched = " ".join(called[2].split())
    assert "accelerate launch --num_machines 2 --machine_rank $SLURM_NODEID" in launched
    assert "--num_processes 8 --main_process_ip node1" in launched
    assert launched.endswith("--multi_gpu -m dermaflux finetune")


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_a_signal_closes_the_stage_before_the_job_ends(
    job: dict[str, str], number: signal.Signals, requeued: bool
) -> None:
    process = subprocess.Popen([DEPLOY / "slurm.sh"], env={**job, "LONG": "1"})
    deadline = time.monotonic() + 30
    while "stage runs" not in log(job) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    status = process.wait(30)
    # Slurm requeues a pre-empted job itself, and must not one that was cancelled.
    asked = "scontrol requeue 7"
    assert log(job)[1:] == ["stage runs", "stage closed", *([asked] if requeued else [])]
    assert status == (0 if requeued else 143)
