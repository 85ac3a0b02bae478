"""The project that `faults.py` disturbs: 60 small images, few steps, every stage with work to do.

Stages run as `dvc repro` would run them, from copies of the state in which they found the project.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fault_processes import ROOT, run
from ruamel.yaml import YAML

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
NAMED = ("-c", "user.name=faults", "-c", "user.email=faults@dermaflux.invalid")


@dataclass
class Project:
    """The project in its one place, and copies of the states in which stages found it."""

    folder: Path
    states: Path
    stages: dict[str, Any] = field(default_factory=dict)
    """Name -> command, inputs and outputs, as dvc.lock has them, in the order of dvc.yaml."""

    def read_stages(self) -> None:
        """What DVC makes of dvc.yaml, in its order: no stage stands before what it needs."""
        from dvc.repo import Repo

        with Repo(str(self.folder)) as repo:
            order = list(YAML(typ="safe").load((self.folder / "dvc.yaml").read_text())["stages"])
            stages = [stage for stage in repo.index.stages if hasattr(stage, "name")]
            for stage in sorted(stages, key=lambda one: order.index(one.name.split("@")[0])):
                self.stages[stage.name] = {
                    "cmd": stage.cmd.split()[1:],
                    "outs": [str(out.def_path) for out in stage.outs],
                    "deps": [str(dep.def_path) for dep in stage.deps if dep.protocol == "local"],
                }

    def command(self, stage: str) -> list[str]:
        """Words of a stage's command after `dermaflux`."""
        return list(self.stages[stage]["cmd"])

    def outputs(self, stage: str) -> list[Path]:
        """Where a stage writes, below the project."""
        return [Path(out) for out in self.stages[stage]["outs"]]

    def inputs(self, stage: str) -> list[Path]:
        """What other stages wrote for this one; code and parameters are none."""
        written = {out for one in self.stages.values() for out in one["outs"]}
        paths = list(dict.fromkeys(map(Path, self.stages[stage]["deps"])))
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
    project = Project(folder, work / "states")
    for command in (["git", "init", "-q"], ["git", *NAMED, "commit", "-qm", "x", "--allow-empty"]):
        subprocess.run(command, cwd=folder, check=True)
    (folder / "data").mkdir()
    if (ended := run(["phantom", "--pool", "60", "data/phantom"], folder)).status:
        raise SystemExit(ended.text)
    return project
