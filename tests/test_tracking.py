from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dermaflux import tracking

WORKER = """
import sys
from pathlib import Path
from dermaflux import tracking
with tracking.start("classifier", f"train/{sys.argv[1]}", {"seed": sys.argv[1]}, []) as run:
    run.metrics({"loss": 1.0}, step=1)
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # MLflow keeps the last store in this variable, for child processes; a test starts without.
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / ".dvc").mkdir()
    return tmp_path


def test_dvc_hash_is_what_dvc_add_writes(root: Path) -> None:
    from ruamel.yaml import YAML

    folder = root / "data"
    for name, text in (("b.txt", "b"), ("a/z.bin", "\0\1"), ("a/é ü.csv", "x,y\n"), ("a.b/c", "")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (root / "one.txt").write_text("a file\r\nof two lines\n")
    (root / ".dvc").rmdir()
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    for command in (("init", "-q", "--no-scm"), ("add", "-q", "data", "one.txt")):
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *command], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    for name in ("data", "one.txt"):
        written = YAML(typ="safe").load((root / f"{name}.dvc").read_text())["outs"][0]["md5"]
        assert tracking.dvc_hash(Path(name)) == written


def test_run_carries_lineage_and_batches_metrics(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "boned-lung")
    source, made = Path("in.txt"), Path("out.txt")
    source.write_text("in")
    parameters = {"ratio": 1.0, "tiny": {"images": 3}}
    with tracking.start("generator", "finetune", parameters, [source]) as run:
        for step in range(1200):
            run.metrics({"loss": step / 2}, step)
        made.write_text("out")
        run.artifact(made, "grids")
        run.outputs(made)
    found = run.client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"ratio": "1.0", "tiny.images": "3"}
    tags = found.data.tags
    assert tags["DVC_EXP_NAME"] == "boned-lung"
    assert tags["stage"] == "finetune"
    assert tags["input.in.txt"] == tracking.dvc_hash(source)
    assert tags["output.out.txt"] == tracking.dvc_hash(made)
    history = run.client.get_metric_history(run.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(step, step / 2) for step in range(1200)]
    assert list((root / "mlruns" / "artifacts" / "generator").rglob("grids/out.txt"))


def test_a_run_that_raises_is_failed_and_keeps_its_metrics(root: Path) -> None:
    opened = []

    def fail() -> None:
        with tracking.start("generator", "finetune", {}, []) as run:
            opened.append(run)
            run.metrics({"loss": 2.0}, 7)
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    run = opened[0]
    found = run.client.get_run(run.run_id)
    assert found.info.status == "FAILED"
    assert found.data.metrics["loss"] == 2.0


def test_a_copy_of_the_checkout_logs_to_the_main_store(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = root / ".dvc" / "tmp" / "exps" / "tmp1"
    copy.mkdir(parents=True)
    (copy / ".dvc").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(root))
    monkeypatch.chdir(copy)
    assert tracking.tracking_uri() == f"sqlite:///{root}/mlruns/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://tracking.example")
    assert tracking.tracking_uri() == "https://tracking.example"


@pytest.mark.slow
def test_four_processes_share_a_fresh_store(root: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(number)], stderr=subprocess.PIPE)
        for number in range(4)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
    client = tracking.connect()
    runs = client.search_runs([tracking.experiment_id(client, "classifier")])
    assert sorted(run.data.params["seed"] for run in runs) == ["0", "1", "2", "3"]
    assert all(run.info.status == "FINISHED" for run in runs)
