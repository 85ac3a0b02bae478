"""The product as its users drive it: DVC on a copy of this checkout, at miniature settings.

One project is built once and the tests follow each other in it, as a user's commands would.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from planted_secrets import SECRETS, found_below, found_in
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
pytestmark = pytest.mark.slow

MINIATURE = {
    "n_real": 40,
    "ratio": 0.5,
    "caption.captioner": "label",
    "validate.caption_characters": [20, 1600],
    "finetune.flux_lora.steps": 4,
    "finetune.flux_lora.batch_tokens": 320,
    "finetune.validation_images": 4,
    "finetune.maximum_images": 16,
    "runtime.finetune.grid_steps": 4,
    "synthesize.images": 80,
    "synthesize.flux_lora.steps": 1,
    "synthesize.batch": 40,
    "train.architectures": ["vit"],
    "train.seeds": [0],
    "train.arms": ["real", "mixture"],
    "train.curve": [],
    "train.epochs": 2,
    "evaluate.bootstrap_samples": 100,
    "promote.bootstrap_samples": 100,
}
STAGES = [
    "ingest",
    "caption",
    "validate",
    "backbone",
    "finetune",
    "selector",
    "synthesize",
    "validate_pool",
    "audit",
    "pretrain",
    "train@vit-0",
    "evaluate@vit-0",
    "zero_shot",
    "promote",
    "report",
]


def run(project: Path, *command: str, expect: int = 0, first: Path = BIN) -> str:
    """Run a command as a user would, with `first` in front of the PATH; all it printed."""
    path = os.pathsep.join([str(first), str(BIN), os.environ["PATH"]])
    environment = {**os.environ, **SECRETS, "PATH": path, "READS": str(first)}
    done = subprocess.run(
        command,
        cwd=project,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == expect, done.stdout
    assert not found_in(done.stdout.encode())
    return done.stdout


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)


def mlflow_runs(project: Path) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project}/mlruns/mlflow.db")
    experiments = [found.experiment_id for found in client.search_experiments()]
    return list(client.search_runs(experiments, max_results=1000))


def write_params(project: Path, values: dict[str, Any]) -> None:
    yaml = YAML()
    raw = yaml.load((project / "params.yaml").read_text())
    for path, value in values.items():
        *parents, last = path.split(".")
        section = raw
        for name in parents:
            section = section[name]
        section[last] = value
    with (project / "params.yaml").open("w") as file:
        yaml.dump(raw, file)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, rendered_corpus: Path) -> Path:
    """A fresh checkout with the phantom corpus rendered and the miniature parameters committed."""
    folder = tmp_path_factory.mktemp("project")
    listed = run(ROOT, "git", "ls-files", "-co", "--exclude-standard", "-z")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "config", "user.email", "test@dermaflux.invalid")
    run(folder, "git", "config", "user.name", "test")
    shutil.copytree(rendered_corpus, folder / "data")
    run(folder, "dvc", "commit", "--quiet", "data.dvc")
    write_params(folder, MINIATURE)
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "miniature")
    return folder


def test_phantom_has_the_hash_that_git_holds(project: Path) -> None:
    assert "up to date" in run(project, "dvc", "status", "data.dvc")


def test_bad_parameter_stops_before_any_work(project: Path) -> None:
    output = run(project, "dvc", "exp", "run", "--temp", "-S", "ratio=-1", expect=255)
    assert "ratio is -1 but should be greater than or equal to 0" in output
    assert "Traceback" not in output


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose `dermaflux` notes which parameters a command reads, in a file per command."""
    folder = tmp_path_factory.mktemp("recorder")
    script = ROOT / "tests" / "fixtures" / "recorded_reads.py"
    (folder / "dermaflux").write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    (folder / "dermaflux").chmod(0o755)
    return folder


def test_repro_runs_every_stage_once(project: Path, recorder: Path) -> None:
    assert sorted(stages_run(run(project, "dvc", "repro", first=recorder))) == sorted(STAGES)
    assert "up to date" in run(project, "dvc", "status")
    ingest = json.loads((project / "reports/ingest.json").read_text())
    assert ingest["images"]["in"] == ingest["images"]["kept"] + ingest["images"]["quarantined"]
    assert (project / "reports/index.html").stat().st_size > 10_000
    run(project, "git", "add", "--all")
    run(project, "git", "commit", "--quiet", "--message", "first run")
    assert "vit" in run(project, "dermaflux", "summary")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_only_the_parameters_it_lists(
    project: Path, recorder: Path, stage: str
) -> None:
    lock = YAML(typ="safe").load((project / "dvc.lock").read_text())["stages"][stage]
    listed = list(lock.get("params", {}).get("params.yaml", {}))
    reads = (recorder / stage.split("@")[0]).read_text().split()
    assert reads, "the recorder saw nothing"
    # A cell asks whether its own name is a student's, which no other name in that list changes.
    names_of_cells = {"distill.students"} if "@" in stage else set()
    # The sheet of images as the pool will show them goes to the MLflow run, and to no output.
    shown = {name for name in reads if stage == "finetune" and name.startswith("synthesize.")}
    unlisted = {
        name
        for name in set(reads) - names_of_cells - shown
        if not name.startswith("runtime.")
        and not any(name == entry or name.startswith(f"{entry}.") for entry in listed)
    }
    assert not unlisted, f"{stage} reads {sorted(unlisted)}"


def test_repro_again_does_nothing_in_under_five_seconds(project: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = run(project, "dvc", "repro")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert stages_run(output) == []
    # Of processor time: other tests run beside this one.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5


def test_every_run_carries_its_lineage(project: Path) -> None:
    runs = mlflow_runs(project)
    revision = run(project, "git", "rev-parse", "HEAD~1").strip()
    names = {found.info.run_name for found in runs}
    assert {"finetune", "synthesize", "audit"} <= names  # a backbone that is pinned is no run
    assert {"vit real seed 0", "vit mixture 1:0.5 seed 0", "vit mixture 1:0.5"} <= names
    lock = YAML(typ="safe").load((project / "dvc.lock").read_text())["stages"]
    corpus = next(out["md5"] for out in lock["ingest"]["outs"] if out["path"] == "corpus")
    for found in runs:
        assert found.info.status == "FINISHED"
        if "over" not in found.data.tags:  # a parent of seeds computes nothing
            assert found.data.tags["mlflow.source.git.commit"] == revision
    (trained,) = (
        found
        for found in runs
        if found.info.run_name == "vit mixture 1:0.5 seed 0" and found.data.tags["stage"] == "train"
    )
    assert trained.data.tags["input.corpus"] == corpus


def test_queued_ratios_retrain_classifiers_and_log_to_the_store_of_the_main_checkout(
    project: Path,
) -> None:
    before = len(mlflow_runs(project))
    run(project, "dvc", "exp", "run", "--queue", "-S", "ratio=0,1.75", "--name", "more")
    run(project, "dvc", "queue", "start", "-j", "2")
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        status = run(project, "dvc", "queue", "status")
        if "Running" not in status and "Queued" not in status:
            break
        time.sleep(2)
    assert status.count("Success") == 2, status
    new = mlflow_runs(project)[: -before or None]
    (larger,) = {
        r.data.tags["DVC_EXP_NAME"] for r in new if r.info.run_name == "vit mixture 1:1.75 seed 0"
    }
    output = run(project, "dvc", "queue", "logs", larger)
    assert stages_run(output) == ["train@vit-0", "evaluate@vit-0", "promote", "report"]
    assert "real" in output  # the arm without synthetic images says it was not trained again
    made = {
        (r.data.tags["stage"], r.info.run_name)
        for r in new
        if r.data.tags.get("DVC_EXP_NAME") == larger
    }
    assert made >= {(stage, "vit mixture 1:1.75 seed 0") for stage in ("train", "evaluate")}
    assert ("train", "vit real seed 0") not in made
    mixtures = [
        r
        for r in new
        if r.info.run_name.startswith("vit mixture")
        and r.data.tags["stage"] == "evaluate"
        and "over" in r.data.tags
    ]
    assert sorted(float(r.data.params["ratio"]) for r in mixtures) == [0.0, 1.75]
    assert len({r.data.tags["DVC_EXP_NAME"] for r in mixtures}) == 2


def test_push_and_pull_restore_a_wiped_workspace(project: Path, tmp_path: Path) -> None:
    run(project, "dvc", "remote", "add", "--default", "shared", str(tmp_path / "remote"))
    run(project, "dvc", "push", "--quiet")
    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "--quiet", str(project), str(clone))
    shutil.copy2(project / ".dvc/config", clone / ".dvc/config")
    assert not (clone / "corpus").exists()
    run(clone, "dvc", "pull", "--quiet")
    assert "up to date" in run(clone, "dvc", "status")
    assert stages_run(run(clone, "dvc", "repro")) == []
    # A clone has an empty registry: promote can be run by hand and gives it its champion.
    run(clone, "dermaflux", "promote")
    picture = next((clone / "data" / "kaggle1").rglob("*.jpg"))
    assert "%" in run(clone, "dermaflux", "predict", str(picture))


def test_secrets_of_the_environment_are_in_no_file(project: Path, tmp_path: Path) -> None:
    """Every command above had them: tags and parameters of runs, reports, logs of the queue."""
    (tmp_path / "planted").write_text(f"password {SECRETS['HF_TOKEN']}")
    assert found_below(tmp_path) == [str(tmp_path / "planted")]
    assert (project / "mlruns/mlflow.db").exists()
    assert found_below(project) == [str(project / "tests/fixtures/planted_secrets.py")]
