from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dermaflux.errors import InputError
from dermaflux.tracking import runs, seed_runs

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    # MLflow keeps the last store in this variable, for child processes; a test starts without.
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for folder in (".dvc", "mlruns"):
        (tmp_path / folder).mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns" / "mlflow.db")
    return tmp_path


def test_dvc_hash_is_what_dvc_add_writes(root: Path) -> None:
    from ruamel.yaml import YAML

    folder = root / "data"
    for name, text in (("b.txt", "b"), ("a/z.bin", "\0\1"), ("a/é ü.csv", "x,y\n"), ("a.b/c", "")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (root / "single.txt").write_text("a file\r\nof two lines\n")
    (root / ".dvc").rmdir()
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    for command in (("init", "-q", "--no-scm"), ("add", "-q", "data", "single.txt")):
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *command], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    for name in ("data", "single.txt"):
        written = YAML(typ="safe").load((root / f"{name}.dvc").read_text())["outs"][0]["md5"]
        assert runs.dvc_hash(Path(name)) == written


def test_run_carries_lineage_and_batches_metrics(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "boned-lung")
    source, output = Path("in.txt"), Path("out.txt")
    source.write_text("in")
    parameters = {"ratio": 1.0, "tiny": {"images": 3}}
    with runs.start("generator", "finetune", parameters, [source]) as run:
        for step in range(1200):
            run.metrics({"loss": step / 2}, step)
        output.write_text("out")
        run.artifact(output, "grids")
        run.outputs(output)
    stored = run.client.get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.data.params == {"ratio": "1.0", "tiny.images": "3"}
    tags = stored.data.tags
    assert tags["DVC_EXP_NAME"] == "boned-lung"
    assert tags["stage"] == "finetune"
    assert tags["input.in.txt"] == runs.dvc_hash(source)
    assert tags["output.out.txt"] == runs.dvc_hash(output)
    history = run.client.get_metric_history(run.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(step, step / 2) for step in range(1200)]
    assert list((root / "mlruns" / "artifacts" / "generator").rglob("grids/out.txt"))


def test_a_run_that_raises_is_failed_and_keeps_its_metrics(root: Path) -> None:
    opened = []

    def fail() -> None:
        with runs.start("generator", "finetune", {}, []) as run:
            opened.append(run)
            run.metrics({"loss": 2.0}, 7)
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    run = opened[0]
    stored = run.client.get_run(run.run_id)
    assert stored.info.status == "FAILED"
    assert stored.data.metrics["loss"] == 2.0


def test_a_copy_of_the_checkout_logs_to_the_main_store(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = root / ".dvc" / "tmp" / "exps" / "tmp1"
    copy.mkdir(parents=True)
    (copy / ".dvc").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(root))
    monkeypatch.chdir(copy)
    assert runs.tracking_uri() == f"sqlite:///{root}/mlruns/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://tracking.example")
    assert runs.tracking_uri() == "https://tracking.example"


CHILD = """
import sys
from dermaflux.errors import InputError
from dermaflux.tracking import runs, seed_runs
parent = runs.Parent("key", "vit real", {"arm": "real"}, headline="AUC")
seed = sys.argv[1]
name = f"vit real seed {seed}"
with runs.start("classifier", name, {"seed": seed}, [], parent=parent, stage="evaluate") as run:
    run.metrics({"AUC": 0.5 + int(seed) / 10, "AUC_low": 0.1})
    if len(sys.argv) > 2:
        run.flush()
        print("open", flush=True)
        sys.stdin.readline()
"""


def family(client: MlflowClient) -> tuple[Any, list[Any]]:
    """The only parent of the experiment, and its children."""
    experiment = [runs.experiment_id(client, "classifier")]
    (parent,) = client.search_runs(experiment, "tags.over = 'seeds'")
    of_parent = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    return parent, client.search_runs(experiment, of_parent)


@pytest.mark.slow
def test_seeds_that_start_at_once_share_a_parent_and_a_killed_one_is_ignored(
    root: Path,
) -> None:
    (root / "mlruns" / "mlflow.db").unlink()  # they create the store together, too

    def start(*arguments: str) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        return subprocess.Popen([sys.executable, "-c", CHILD, *arguments], **pipes)  # type: ignore[call-overload,no-any-return]

    waiting = start("3", "wait")
    ending = [start(seed) for seed in ("0", "1")]
    assert [process.wait(timeout=300) for process in ending] == [0, 0]
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "open\n"
    waiting.kill()
    waiting.wait()

    client = runs.connect()
    parent, children = family(client)
    assert len(children) == 3
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {"arm": "real"}
    expected = {"AUC": 0.55, "AUC_sd": statistics.stdev([0.5, 0.6]), "seeds": 2.0}
    assert parent.data.metrics == pytest.approx(expected)

    assert start("3").wait(timeout=300) == 0  # the killed seed again
    parent, children = family(client)
    states = sorted((child.info.run_name, child.info.status) for child in children)
    assert states[-2:] == [("vit real seed 3", "FINISHED"), ("vit real seed 3", "KILLED")]
    assert parent.data.metrics["AUC"] == pytest.approx((0.5 + 0.6 + 0.8) / 3)


def test_a_parent_fails_with_its_seed_and_recovers_with_it(root: Path) -> None:
    parent = runs.Parent("key", "vit real", {})

    def cell(value: float, fails: bool) -> None:
        with runs.start("classifier", "vit real seed 0", {"seed": 0}, [], parent=parent) as run:
            run.metrics({"AUC": value})
            if fails:
                raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        cell(0.9, fails=True)
    client = runs.connect()
    stored, _ = family(client)
    assert (stored.info.status, stored.data.metrics) == ("FAILED", {"seeds": 0.0})
    cell(0.6, fails=False)
    cell(0.7, fails=False)  # an evaluation repeated: the latest of a seed counts, once
    stored, _ = family(client)
    assert (stored.info.status, stored.data.metrics) == ("FINISHED", {"AUC": 0.7, "seeds": 1.0})


def test_datasets_are_named_by_the_hash_of_their_folder(root: Path) -> None:
    (root / "corpus").mkdir()
    (root / "corpus" / "train.parquet").write_bytes(b"rows")
    parent = runs.Parent("key", "vit real", {})
    datasets = [
        runs.Dataset(f"corpus {split}", Path("corpus"), {"benign": 3, "malignant": 2}, context)
        for split, context in (("train", "training"), ("validation", "validation"))
    ]
    for seed in (0, 1):
        name, parameters = f"vit real seed {seed}", {"seed": seed}
        with runs.start(
            "classifier", name, parameters, [], parent=parent, datasets=datasets
        ) as run:
            pass
    above, _ = family(run.client)
    for stored in (run.client.get_run(run.run_id), above):
        inputs = {entry.dataset.name: entry for entry in stored.inputs.dataset_inputs}
        assert sorted(inputs) == ["corpus train", "corpus validation"]
        training = inputs["corpus train"]
        assert training.dataset.digest == runs.dvc_hash(Path("corpus"))
        assert json.loads(training.dataset.profile)["num_rows"] == 5
        assert [(tag.key, tag.value) for tag in training.tags] == [
            ("mlflow.data.context", "training")
        ]


def test_a_rewritten_file_is_read_again(root: Path) -> None:
    path = root / "corpus" / "shard"
    path.parent.mkdir()
    path.write_text("one")
    before = runs.dvc_hash(path.parent)
    path.write_text("two")  # of the same size
    assert runs.dvc_hash(path.parent) != before


ALONE = """
import sys
from dermaflux import launch
from dermaflux.errors import InputError
from dermaflux.tracking import runs, seed_runs
launch.exit_on_signals()
with runs.start("generator", sys.argv[1], {}, []) as run:
    print(run.run_id, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.slow
def test_runs_of_killed_processes_are_closed_and_live_ones_are_not(root: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([sys.executable, "-c", ALONE, name], **pipes)  # type: ignore[call-overload]
        for name in ("a", "b", "c", "d")
    ]
    killed, live, ended, interrupted = (
        (process, process.stdout.readline().strip()) for process in processes
    )
    client = runs.connect()

    def status(of: tuple[subprocess.Popen[str], str]) -> str:
        return str(client.get_run(of[1]).info.status)

    killed[0].kill()
    ended[0].send_signal(signal.SIGTERM)
    interrupted[0].send_signal(signal.SIGINT)
    for process, _ in (killed, ended, interrupted):
        process.wait(timeout=60)
    assert [status(run) for run in (killed, live, ended, interrupted)] == [
        "RUNNING", "RUNNING", "KILLED", "KILLED",
    ]  # fmt: skip
    assert client.get_run(live[1]).data.tags["process.id"] == str(live[0].pid)
    elsewhere = client.create_run(runs.experiment_id(client, "generator"), run_name="a")
    with runs.start("generator", "a", {}, []):
        assert status(killed) == "KILLED"
    assert status(live) == "RUNNING"
    assert client.get_run(elsewhere.info.run_id).info.status == "RUNNING"
    live[0].communicate("\n", timeout=60)
    assert status(live) == "FINISHED"
    assert not list(root.glob(".dermaflux/running/*/*.lock"))


def test_a_held_store_is_told_with_its_holder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dermaflux.tracking.store._LOCK_SECONDS", 0.5)
    code = (
        "import sys\nfrom dermaflux.tracking import store\n"
        "with store.exclusive(store.tracking_uri(), 'initialise'):\n"
        "    print('held', flush=True)\n    sys.stdin.readline()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=rf"mlflow.db cannot be used while process {holder.pid}"):
        runs.connect()
    holder.communicate("\n", timeout=60)
    runs.connect()


def test_a_parent_created_twice_on_a_server_is_the_earlier_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = runs.connect()
    experiment = runs.experiment_id(client, "classifier")
    parent = runs.Parent("key", "vit real", {})
    found = seed_runs._parents
    first: list[str] = []

    def race(*arguments: Any) -> list[str]:
        if not first:  # another machine creates it just after this one has looked
            first.append(seed_runs._create(client, experiment, parent))
            return []
        return found(*arguments)

    monkeypatch.setattr(seed_runs, "_parents", race)
    assert seed_runs.adopt(client, experiment, parent, "vit real seed 0") == first[0]
    assert found(client, experiment, parent) == first
