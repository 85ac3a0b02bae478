"""Stores that do not answer or refuse, on real sockets; `test_team_server` has a real server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dermaflux.errors import InputError
from dermaflux.tracking import mlflow_settings, runs, store

SECRET = "hunter2-planted"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    for name, value in mlflow_settings.WAITS.items():
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


@pytest.mark.parametrize(
    ("status", "final"), [("413 Request Entity Too Large", True), ("500 Oh", False)]
)
def test_a_file_that_a_proxy_never_takes_does_not_wait_for_ever(
    status: str, final: bool, root: Path
) -> None:
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

    (root / "curve.png").write_bytes(b"x")
    with answers(http(status, PAGE)) as port:
        artifacts = f"http://127.0.0.1:{port}/api/2.0/mlflow-artifacts/artifacts"
        with pytest.raises(Exception, match=status[:3]) as caught:
            HttpArtifactRepository(artifacts).log_artifact(str(root / "curve.png"))
    assert store.rejects(caught.value) == final
    assert store.reason(caught.value) == f"HTTP {status[:3]}"


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
