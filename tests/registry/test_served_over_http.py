"""`mlflow models serve` from a client's view: a process, a port, JSON."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import served_requests as served
import small_registry as small
from PIL import Image

from dermaflux.params import Params
from dermaflux.registry import promote, registry
from dermaflux.tracking import runs

_TIMEOUT = 240.0


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _post(port: int, body: bytes, content_type: str | None = served.JSON) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    # urllib would add a content type to a request without one.
    headers = {} if content_type is None else {"Content-Type": content_type}
    connection.request("POST", "/invocations", body, headers)
    answer = connection.getresponse()
    assert answer.headers["Content-Type"] == served.JSON
    return answer.status, json.loads(answer.read())


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


def _attacks() -> list[str]:
    """Pictures that other decoders open at any cost: scans, megapixels, PostScript, half a file."""
    out = io.BytesIO()
    Image.new("RGB", (7000, 7000), "tan").save(out, "JPEG", progressive=True)
    whole = out.getvalue()
    start = whole.rindex(b"\xff\xda")
    scans = whole[:start] + whole[start:-2] * 90 + b"\xff\xd9"
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n"
    attacks = [scans, postscript, b"GIF89a" + bytes(99), served.IMAGE[:200]]
    return [*(base64.b64encode(one).decode() for one in attacks), served.claiming(65535, 65535)]


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
            encoded = [base64.b64encode(image).decode() for image in images]
            status, answer = _post(port, served.split(*encoded))
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
            for refused in served.REFUSED:
                if len(refused.body) < 10**7:
                    status, answer = _post(port, refused.body, refused.content_type)
                    assert status == refused.status, (refused.name, answer)
                    assert refused.words in answer["message"], refused.name
                    assert set(answer) == {"error_code", "message"}
            start = time.monotonic()
            status, answer = _post(port, served.split(*_attacks()))
            assert status == 200
            assert all(row["problem"] for row in answer["predictions"])
            assert time.monotonic() - start < 5
            assert _post(port, served.split(served.TEXT))[0] == 200  # the server is still there
        finally:
            server.terminate()
            server.wait(timeout=30)
