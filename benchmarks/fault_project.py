"""The project that `faults.py` disturbs: 60 small images, few steps, every stage with work to do.

Stages run as `dvc repro` would run them, from copies of the state in which they found the project.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
PARAMETERS: dict[str, Any] = {
    "n_real": 20,
    "ratio": 0.5,
    "ingest.own": [{"name": "phantom", "folder": "phantom"}],
    "ingest.test_fraction": 0.3,
    "backbone.repository": "tiny",
    "backbone.tiny": {"images": 12, "autoencoder_steps": 2, "autoencoder_learning_rate": 1e-6,
                      "autoencoder_batch": 8, "autoencoder_crop": 64, "flow_steps": 2,
                      "flow_batch": 16, "flow_learning_rate": 0.003, "minimum_psnr": 20.0},
    "finetune.maximum_images": 16,
    "finetune.validation_images": 4,
    "finetune.validation_steps": 4,
    "finetune.flux_lora.steps": 6,
    "finetune.flux_lora.batch_tokens": 320,
    "runtime.finetune.checkpoint_steps": 2,
    "runtime.finetune.grid_steps": 6,
    "synthesize.images": 24,
    "synthesize.batch": 4,
    "synthesize.shard_images": 8,
    "synthesize.flux_lora.steps": 2,
    "synthesize.select": "uncertain",
    "synthesize.candidates": 2,
    "train.architectures": ["vit", "vit_mae"],
    "train.recipe": "mae",
    "train.seeds": [0],
    "train.arms": ["real", "mixture"],
    "train.curve": [],
    "train.epochs": 3,
    "pretrain.epochs": 3,
    "pretrain.warmup_epochs": 1,
    "distill.students": ["resnext"],
    "distill.teacher": "vit",
    "distill.arms": ["real", "mixture"],
    "evaluate.bootstrap_samples": 100,
    "evaluate.minimum_group": 3,
    "promote.bootstrap_samples": 100,
}  # fmt: skip
LONGEST_SECONDS = 1800.0
"""After which a command that does not end is killed, and the table says so."""


@dataclass
class Project:
    """The project in its one place, and copies of the states in which stages found it."""

    folder: Path
    states: Path
    environment: dict[str, str]
    stages: dict[str, Any] = field(default_factory=dict)
    """Name -> command, inputs and outputs, as dvc.lock has them, in the order of dvc.yaml."""

    def read_stages(self) -> None:
        """What DVC ran, in the order of dvc.yaml, where no stage stands before what it needs."""
        yaml = YAML(typ="safe")
        order = list(yaml.load((self.folder / "dvc.yaml").read_text())["stages"])
        locked = yaml.load((self.folder / "dvc.lock").read_text())["stages"]
        names = sorted(locked, key=lambda name: order.index(name.split("@")[0]))
        self.stages = {name: locked[name] for name in names}

    def command(self, stage: str) -> list[str]:
        """The command of a stage, in this interpreter."""
        return [sys.executable, "-m", "dermaflux", *self.stages[stage]["cmd"].split()[1:]]

    def outputs(self, stage: str) -> list[Path]:
        """Where a stage writes, below the project."""
        return [Path(out["path"]) for out in self.stages[stage]["outs"]]

    def inputs(self, stage: str) -> list[Path]:
        """What other stages wrote for this one; code and parameters are none."""
        written = {out["path"] for one in self.stages.values() for out in one["outs"]}
        paths = [Path(dep["path"]) for dep in self.stages[stage]["deps"]]
        return [self.folder / p for p in paths
                if {str(p), *map(str, p.parents)} & written or p.parts[0] == "data"]  # fmt: skip

    def clear(self, stage: str) -> None:
        """Remove the outputs of a stage, as DVC does before it runs one."""
        for output in self.outputs(stage):
            place = self.folder / output
            if place.is_dir():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)

    def size(self) -> int:
        """Bytes of all files, in whole pages of memory."""
        return sum(
            -(-path.lstat().st_size // 4096) * 4096 + 4096 for path in self.folder.rglob("*")
        )

    def fill(self, leaving: int) -> None:
        """Fill the project's own disk with one file, but for some bytes."""
        free = shutil.disk_usage(self.folder).free
        with (self.folder / ".filling").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, free - leaving))

    def checkpoint_files(self) -> list[Path]:
        """Files of unfinished work, without locks."""
        folder = self.folder / ".dermaflux" / "checkpoints"
        files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 1]
        return [path for path in files if ".lock" not in path.name]

    def restore(self, stage: str) -> None:
        """The project as the stage found it, without its outputs, as DVC would hand it over."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.states / stage, self.folder, symlinks=True)

    def digests(self, stage: str) -> dict[str, str]:
        """Relative path -> SHA-256 of every file that the stage wrote."""
        found = {}
        for output in self.outputs(stage):
            place = self.folder / output
            files = [place] if place.is_file() else sorted(place.rglob("*"))
            for file in files:
                if file.is_file():
                    digest = hashlib.sha256(file.read_bytes()).hexdigest()
                    found[str(file.relative_to(self.folder))] = digest
        return found


@dataclass
class Ended:
    """How a command ended."""

    status: int
    seconds: float
    processor_seconds: float
    text: str
    signalled: bool = False

    @property
    def last_line(self) -> str:
        """Its last line, where nothing follows the error."""
        lines = self.text.strip().splitlines()
        return lines[-1] if lines else ""

    def facts(self) -> dict[str, Any]:
        """For the results file."""
        return {
            "exit_status": self.status,
            "seconds": round(self.seconds, 2),
            "last_line": self.last_line[:300],
            "traceback": "Traceback (most recent call last)" in self.text,
        }


def processor_seconds(process: psutil.Process) -> float:
    """Of a process and its children so far; 0 when it is gone."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        for member in (process, *process.children(recursive=True)):
            times = member.cpu_times()
            total += times.user + times.system
    return total


class Running:
    """A command that runs in the project."""

    def __init__(self, command: list[str], project: Project, temporary: str | None = None) -> None:
        self._output = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        environment = dict(project.environment)
        if temporary is not None:
            environment["TMPDIR"] = str(project.folder / temporary)
        self._started = time.monotonic()
        self.process = subprocess.Popen(
            command, cwd=project.folder, env=environment, stdout=self._output,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self._watched = psutil.Process(self.process.pid)

    def end(self, number: int | None = None, at: float = 0.0) -> Ended:
        """Wait for its end; send signal `number` after `at` seconds of processor time.

        `seconds` of the result count from the signal, where one was sent.
        """
        used, signalled, begin = 0.0, False, self._started
        while self.process.poll() is None:
            used = max(used, processor_seconds(self._watched))
            if number is not None and not signalled and used >= at:
                self.process.send_signal(number)
                begin, signalled = time.monotonic(), True
            if time.monotonic() - self._started > LONGEST_SECONDS:
                self.process.kill()
            time.sleep(0.01 if signalled else 0.05)
        seconds = time.monotonic() - begin
        with self._output as output:
            output.seek(0)
            return Ended(self.process.returncode, seconds, used, output.read(), signalled)


def start(command: list[str], project: Project, temporary: str | None = None) -> Running:
    """Start a command in the project; with `temporary`, a folder of it for temporary files."""
    return Running(command, project, temporary)


def run(
    command: list[str],
    project: Project,
    number: int | None = None,
    at: float = 0.0,
    temporary: str | None = None,
) -> Ended:
    """Run a command in the project to its end, as `Running.end` says."""
    return start(command, project, temporary).end(number, at)


def build(work: Path) -> Project:
    """A checkout with the small parameters and the data, nothing run yet."""
    folder = work / "project"
    shutil.rmtree(folder, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    wanted = ("src/", "prompts/", ".dvc/", ".dvcignore", "dvc.yaml", "params.yaml", ".gitignore")
    for name in filter(lambda name: name.startswith(wanted), listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    (folder / "backbones").mkdir()
    (folder / "backbones" / "none").write_text("")
    yaml = YAML()
    raw = yaml.load((folder / "params.yaml").read_text())
    for path, value in PARAMETERS.items():
        *parents, last = path.split(".")
        section = raw
        for name in parents:
            section = section[name]
        section[last] = value
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(raw, file)
    environment = {
        **{name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"},
        "PYTHONPATH": str(folder / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "DVC_NO_ANALYTICS": "1",
    }
    project = Project(folder, work / "states", environment)
    for command in (
        ["git", "init", "-q"],
        [sys.executable, "-m", "dermaflux", "phantom", "--pool", "60", "data/phantom"],
        ["git", "-c", "user.name=faults", "-c", "user.email=faults@dermaflux.invalid", "commit",
         "-q", "--allow-empty", "-m", "faults"],
    ):  # fmt: skip
        if (ended := run(command, project)).status:
            raise SystemExit(ended.text)
    return project
