"""`mlflow models serve` from a client's view: a process, a port, JSON."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import small_registry as small

from dermaflux.params import Params
from dermaflux.registry import promote, registry
from dermaflux.tracking import runs

_TIMEOUT = 240.0


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _post(address: str, content: object) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"{address}/invocations",
        json.dumps(content).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status), json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def _wait(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _TIMEOUT
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{address}/ping", timeout=5)
        except OSError:
            time.sleep(0.5)
        else:
            return
    pytest.fail(log.read_text())


@pytest.mark.slow
def test_the_champion_predicts_images_over_http(unpromoted: Params, tmp_path: Path) -> None:
    promote.run(unpromoted)
    champion = registry.require_champion(runs.connect(), "lesion-vit")
    images = [small.image(7, True), b"damaged", small.flat(), small.image(8, False)]
    expected = champion.load().predict_images(images)
    port, log = _free_port(), tmp_path / "serve.log"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["-m", "models:/lesion-vit@champion", "--host", "127.0.0.1", "--port", str(port)]
    # MLflow looks for uvicorn on the path, where a virtual environment need not be.
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"MLFLOW_TRACKING_URI": runs.tracking_uri(), "PATH": programs}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=environment) as server,
    ):
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(address, server, log)
            encoded = [[base64.b64encode(image).decode()] for image in images]
            split = {"columns": ["image"], "data": encoded}
            status, answer = _post(address, {"dataframe_split": split})
            assert status == 200, answer
            rows = answer["predictions"]
            assert len(rows) == len(images)
            for row, reference in zip(rows, expected, strict=True):
                if reference["probability"] is None:
                    assert row["probability"] is None
                else:
                    probability = pytest.approx(reference["probability"], rel=1e-6)
                    assert row["probability"] == probability
                for column in ("label", "out_of_distribution", "problem"):
                    assert row[column] == reference[column]
            assert "not a whole image" in rows[1]["problem"]
            assert rows[2]["out_of_distribution"] is True
            status, answer = _post(
                address, {"dataframe_split": {"columns": ["x"], "data": [["y"]]}}
            )
            assert status == 400
            assert "image" in answer
        finally:
            server.terminate()
            server.wait(timeout=30)
