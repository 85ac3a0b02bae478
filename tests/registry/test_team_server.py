"""A team's MLflow server with accounts: a real process, its permissions, traffic and absence."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow_server
import pytest
import small_registry as small

from dermaflux.classifiers.logging import mlflow_runs
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.registry import predict, promote, register, registry, rollback
from dermaflux.tracking import runs, seed_runs, store, undelivered

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, empty_store: Path
) -> Iterator[mlflow_server.Server]:
    server = mlflow_server.Server(tmp_path_factory.mktemp("server"), empty_store)
    server.start()
    try:
        for name in ("anna", "editor", "reader"):
            server.account(name)
        yield server
    finally:
        server.stop()


Login = Callable[[str], None]


@pytest.fixture
def login(server: mlflow_server.Server, monkeypatch: pytest.MonkeyPatch) -> Login:
    """Use the server with this account, or with none for ''."""
    monkeypatch.setattr(store, "_ANSWER_SECONDS", 120.0)  # of a busy machine
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    def use(name: str) -> None:
        monkeypatch.setenv(store.VARIABLE, server.address)
        for variable, value in (("USERNAME", name), ("PASSWORD", f"password-of-{name}")):
            if name:
                monkeypatch.setenv(f"MLFLOW_TRACKING_{variable}", value)
            else:
                monkeypatch.delenv(f"MLFLOW_TRACKING_{variable}", raising=False)

    return use


def test_two_machines_that_start_at_once_end_under_one_parent(login: Login) -> None:
    login("anna")
    parent = runs.Parent("key", "vit real", {"arm": "real"})
    clients = [runs.connect(), runs.connect()]
    together = threading.Barrier(2)

    def machine(client: Any) -> str:
        together.wait()
        key = store.experiment_id(client, "classifier")
        together.wait()
        seed_runs.adopt(client, key, parent, "vit real seed")
        return key

    with ThreadPoolExecutor(2) as pool:
        experiments = set(pool.map(machine, clients))
    (key,) = experiments
    # Whatever came of that, the worst: each machine found its own parent alone.
    client = clients[0]
    strays = [seed_runs._create(client, key, parent) for _ in range(2)]
    for seed, stray in enumerate(strays):
        tags = {seed_runs.PARENT: stray}
        child = client.create_run(key, run_name=f"vit real seed {seed}", tags=tags).info.run_id
        client.log_param(child, "seed", seed)
        client.log_metric(child, "AUC", 0.6 + seed / 10)
        client.set_terminated(child)
        seed_runs.settle(client, key, parent, child)
    (left,) = client.search_runs([key], "tags.over = 'seeds'")
    assert left.data.metrics["AUC"] == pytest.approx(0.65)
    of_left = f"tags.`{seed_runs.PARENT}` = '{left.info.run_id}'"
    assert len(client.search_runs([key], of_left)) == 2
    assert seed_runs.adopt(client, key, parent, "another") == left.info.run_id


def test_a_member_promotes_in_few_requests_and_a_reader_is_told_in_one_sentence(
    unpromoted: Params, server: mlflow_server.Server, login: Login, tmp_path: Path
) -> None:
    lesion = tmp_path / "lesion.png"
    lesion.write_bytes(small.image(7, True))
    name = unpromoted.promote.model_name
    login("anna")
    with pytest.raises(InputError, match="no model 'lesion-vit' with the alias"):
        predict.run(unpromoted, [lesion])
    assert server.requests_of(lambda: promote.run(unpromoted)).total() <= 60
    assert small.report()["decision"] == "promoted"
    small.classifier("vit-0", "mixture", noise=0.05, seed=3)
    counted = server.requests_of(lambda: promote.run(unpromoted))
    assert counted.total() <= 60, counted
    assert small.report()["decision"] == "promoted"
    counted = server.requests_of(lambda: predict.run(unpromoted, [lesion]))
    assert counted.total() <= 15, counted
    assert not any("/code/" in path for path in counted)
    counted = server.requests_of(lambda: rollback.run(unpromoted, "calls moles malignant"))
    assert counted.total() <= 25, counted
    assert registry.require_champion(runs.connect(), name).version == "1"

    for account, sentence in (
        ("reader", "does not let the user 'reader' do this .HTTP 403."),
        ("", "refuses access .HTTP 401.; set MLFLOW_TRACKING_USERNAME"),
    ):
        login(account)
        # Told before any work: nothing here could be read.
        (tmp_path / "corpus").rename(tmp_path / "away")
        for attempt in (
            lambda: promote.run(unpromoted),
            lambda: register.run(unpromoted),
            lambda: rollback.run(unpromoted, "no"),
            lambda: store.require_writable("classifier"),
        ):
            with pytest.raises(InputError, match=sentence) as caught:
                attempt()
            assert "password-of" not in str(caught.value)
        (tmp_path / "away").rename(tmp_path / "corpus")
    login("reader")
    predict.run(unpromoted, [lesion])
    assert registry.require_champion(runs.connect(), name).version == "1"

    login("anna")
    client = runs.connect()
    client.set_registered_model_alias(name, registry.CHALLENGER, "2")
    server.grant("editor", "registered_model", name, "EDIT")
    testing = client.get_experiment_by_name(mlflow_runs.TESTING)
    assert testing is not None
    server.grant("editor", "experiment", testing.experiment_id, "EDIT")
    login("editor")  # who may delete nothing, not even the challenger's alias
    small.classifier("vit-0", "mixture", noise=0.01, seed=4)
    promote.run(unpromoted)
    assert small.report()["decision"] == "promoted"
    assert client.get_registered_model(name).aliases == {"champion": "3", "challenger": "2"}

    archive = next((server.folder / "artifacts").rglob("code/dermaflux.zip"))
    assert "dermaflux/registry/registry.py" in zipfile.ZipFile(archive).namelist()
    code = "import dermaflux.registry.serving as loaded; print(loaded.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(archive)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{archive}/dermaflux/registry/serving.py"


TRAINING = """
import os, sys, matplotlib.figure
from pathlib import Path
from dermaflux.tracking import run, runs
parent = runs.Parent("lost", "vit real", {"arm": "real"})
def start(seed):
    parameters = {"seed": seed, "url": "https://me:hunter2-planted@elsewhere/v1"}
    return runs.start("training", f"vit real seed {seed}", parameters, [], parent=parent)
with start(0) as first:
    first.metrics({"loss": 1.0}, 0)
    first.flush()
    print("ready", flush=True)
    sys.stdin.readline()
    for step in range(1, 1501):
        first.metrics({"loss": 1 / (1 + step)}, step)
    first.metrics({"AUC": 0.5})
    first.tag("note", "the server is away")
    first.figure(matplotlib.figure.Figure(), "curve.png")
Path("weights").write_text("trained")
with start(1) as second:
    second.metrics({"AUC": 0.7})
    second.outputs(Path("weights"))
third = start(2).__enter__()
third.metrics({"loss": 3.0})
third.flush()
os.kill(os.getpid(), 9)
"""


def test_what_a_lost_server_missed_is_delivered_when_it_is_back(
    server: mlflow_server.Server, login: Login, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    login("anna")
    child = subprocess.Popen(
        [sys.executable, "-c", TRAINING], env=dict(os.environ), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "ready\n"
        server.stop()
        began = time.monotonic()
        _, said = child.communicate("\n", timeout=300)
        elapsed = time.monotonic() - began
    finally:
        server.start()
    assert child.returncode == -9, said
    assert elapsed < 60
    assert (tmp_path / "weights").read_text() == "trained"
    assert "'vit real seed 0' cannot be written (Connection refused)" in said
    assert "wait for the store (Connection refused); `dermaflux deliver` sends them" in said
    assert "Traceback" not in said
    kept = [path for path in (tmp_path / ".dermaflux").rglob("*") if path.is_file()]
    assert not any(b"hunter2-planted" in path.read_bytes() for path in kept)

    undelivered.run()
    assert "deliver: 3 runs delivered" in capsys.readouterr().out
    client = runs.connect()
    experiment = client.get_experiment_by_name("training")
    assert experiment is not None
    stored = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(stored) == ["vit real", *(f"vit real seed {seed}" for seed in range(3))]
    first, second, third = (stored[f"vit real seed {seed}"] for seed in range(3))
    history = client.get_metric_history(first.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(s, 1 / (1 + s)) for s in range(1501)]
    assert first.data.tags["note"] == "the server is away"
    assert [file.path for file in client.list_artifacts(first.info.run_id)] == ["curve.png"]
    assert second.data.params == {"seed": "1", "url": "https://***@elsewhere/v1"}
    assert second.data.tags["output.weights"] == runs.dvc_hash(Path("weights"))
    assert second.info.end_time - second.info.start_time < 60_000
    states = [run.info.status for run in (first, second, third)]
    assert states == ["FINISHED", "FINISHED", "KILLED"]
    assert third.data.metrics == {"loss": 3.0}
    means = stored["vit real"].data.metrics
    assert (means["AUC"], means["seeds"]) == (pytest.approx(0.6), 2.0)

    undelivered.run()  # nothing is left, and nothing arrives twice
    assert "deliver: 0 runs delivered" in capsys.readouterr().out
    assert not list((tmp_path / ".dermaflux" / "undelivered").rglob("calls.jsonl"))
    assert len(client.search_runs([experiment.experiment_id])) == 4
