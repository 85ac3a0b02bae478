"""Stores that do not answer, refuse or die: real sockets and a real MLflow server on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from dermaflux.errors import InputError
from dermaflux.tracking import runs, store

SECRET = "hunter2-planted"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    for name, value in store._HTTP.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(store, "_answered", set())
    return tmp_path


@contextmanager
def answers(content: bytes | None, drip: bool = False) -> Iterator[int]:
    """A port whose every connection gets these bytes; None: is accepted and never answered."""
    listener = socket.create_server(("127.0.0.1", 0))
    opened = []

    def serve(connection: socket.socket) -> None:
        if content is None:
            return
        try:
            connection.recv(65536)
            size = 1 if drip else len(content) + 1
            for start in range(0, len(content), size):
                connection.sendall(content[start : start + size])
                time.sleep(0.1 if drip else 0)
            connection.close()
        except OSError:
            pass

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            opened.append(connection)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()
        for connection in opened:
            connection.close()


def http(status: str, body: bytes, kind: str = "text/html") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


PAGE = b"<html><body>" + SECRET.encode() + b"x" * 5000 + b"</body></html>"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no answer within"),
        (http("401 Unauthorized", b"no"), r"HTTP 401.*MLFLOW_TRACKING_USERNAME"),
        (http("403 Forbidden", PAGE), r"HTTP 403.*MLFLOW_TRACKING_USERNAME"),
        (http("404 Not Found", PAGE), "HTTP 404"),
        (http("500 Internal Server Error", PAGE), "HTTP 500"),
        (http("503 Service Unavailable", PAGE), "HTTP 503"),
        (http("200 OK", PAGE), "not one of MLflow"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "cannot be used"),
        (b"", "cannot be used"),
    ],
    ids=["hangs", "401", "403", "404", "500", "503", "web page", "other protocol", "cut"],
)
def test_a_server_of_another_kind_is_one_sentence(
    content: bytes | None, message: str, root: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(store, "_ANSWER_SECONDS", 3.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    with answers(content) as port:
        monkeypatch.setenv(store.VARIABLE, f"http://me:{SECRET}@127.0.0.1:{port}")
        with pytest.raises(InputError, match=message) as caught, runs.start("e", "n", {}, []):
            pass
    text = str(caught.value)
    assert f"127.0.0.1:{port}" in text
    assert "\n" not in text
    assert len(text) < 500
    assert SECRET not in text + "".join(capfd.readouterr())
    assert not (root / "mlruns").exists()  # no lock, no file for a store elsewhere


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://me:{secret}@127.0.0.1:{port}", "Connection refused"),
        ("http://me:{secret}@nowhere.invalid", "cannot be used"),
        ("postgresql://me:{secret}@127.0.0.1:{port}/mlflow", "cannot be used"),
        ("mlruns", "MLflow no longer accepts"),
        ("./mlruns", "MLflow no longer accepts"),
        ("file:mlruns", "MLflow no longer accepts"),
        ("mlruns/mlflow.db", "write sqlite:///mlruns/mlflow.db"),
        ("sqlite://", "in memory"),
        ("sqlite:mlruns/mlflow.db", "cannot be used"),
        ("sqlite:///:memory:", "in memory"),
        ("htp://me:{secret}@127.0.0.1", "cannot be used"),
    ],
)
def test_an_address_without_a_store_is_one_sentence(
    uri: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv(store.VARIABLE, uri.format(secret=SECRET, port=port))
    began = time.monotonic()
    with pytest.raises(InputError, match=message) as caught:
        runs.connect()
    assert time.monotonic() - began < 20
    assert SECRET not in str(caught.value)


def test_a_server_that_sends_byte_by_byte_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_ANSWER_SECONDS", 2.0)
    with answers(http("200 OK", b" " * 2000), drip=True) as port:
        monkeypatch.setenv(store.VARIABLE, f"http://127.0.0.1:{port}")
        began = time.monotonic()
        with pytest.raises(InputError, match="no answer within 2 s"):
            runs.connect()
        assert time.monotonic() - began < 4


@pytest.mark.parametrize("name", ["mlruns/other.db", "./mlruns/other.db"])
def test_a_relative_path_is_one_of_the_main_checkout(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = root / ".dvc" / "tmp" / "exps" / "tmp1"
    (copy / ".dvc").mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(root))
    monkeypatch.chdir(copy)
    monkeypatch.setenv(store.VARIABLE, f"sqlite:///{name}")
    assert runs.tracking_uri() == f"sqlite:///{root}/mlruns/other.db"
    monkeypatch.setenv(store.VARIABLE, f"sqlite:///{name}?timeout=60")
    assert runs.tracking_uri() == f"sqlite:///{root}/mlruns/other.db?timeout=60"
    monkeypatch.setenv(store.VARIABLE, f"sqlite:////abs/{name}")
    assert runs.tracking_uri() == f"sqlite:////abs/{name}"
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv(store.VARIABLE, "file:./mlruns")
    assert runs.tracking_uri() == (root / "mlruns").as_uri()


CHILD = """
import sys
from dermaflux.tracking import runs
with runs.start("training", "vit real seed 0", {"seed": 0, "url": sys.argv[1]}, []) as run:
    run.metrics({"loss": 1.0}, 0)
    run.flush()
    print(run.run_id, flush=True)
    sys.stdin.readline()
    run.metrics({"loss": 0.5}, 1)
    run.tag("output", sys.argv[1])
    run.flush()
open("weights", "w").write("trained")
run.outputs()
try:
    with runs.start("training", "vit real seed 1", {}, []) as second:
        second.metrics({"loss": 0.1}, 0)
finally:
    print("end", flush=True)
"""


@pytest.mark.slow
def test_a_server_that_dies_during_a_training_costs_the_log_and_nothing_else(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--backend-store-uri", f"sqlite:///{root}/server.db", "--workers", "1",
    ]  # fmt: skip
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = (root / "server.log").open("wb")
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=root,
                              start_new_session=True)  # fmt: skip
    try:
        for _ in range(240):
            time.sleep(0.5)
            try:
                if requests.get(f"http://127.0.0.1:{port}/health", timeout=2).ok:
                    break
            except requests.RequestException:
                continue
        address = f"http://me:{SECRET}@127.0.0.1:{port}"
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, f"https://me:{SECRET}@elsewhere/v1"],
            env={**environment, store.VARIABLE: address}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert child.stdout is not None
        run_id = child.stdout.readline().strip()
        assert len(run_id) == 32, run_id + child.stdout.read()
    finally:
        os.killpg(server.pid, 9)
        server.wait()
    began = time.monotonic()
    output, _ = child.communicate("\n", timeout=120)
    assert child.returncode == 0, output
    assert time.monotonic() - began < 60
    assert (root / "weights").read_text() == "trained"
    assert "'vit real seed 0' cannot be written" in output
    assert "lacks 1 metrics" in output
    assert "'vit real seed 1' cannot be written" in output
    assert "Traceback" not in output
    assert SECRET not in output + run_id
    assert SECRET.encode() not in (root / "server.db").read_bytes()
    from mlflow import MlflowClient

    stored = MlflowClient(f"sqlite:///{root}/server.db").get_run(run_id)
    assert stored.data.metrics == {"loss": 1.0}
