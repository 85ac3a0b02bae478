"""Screenshots of the MLflow UI and of the report for docs/, taken with a headless Chromium.

Command, in a checkout with runs: `python docs/screenshots.py [STORE] [FOLDER]`, by default
mlruns/mlflow.db and docs. Serves the store on a free port of 127.0.0.1 and drives the browser over
its DevTools protocol; both stop when the script ends.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from mlflow import MlflowClient

from dermaflux import paths
from dermaflux.classifiers.logging import mlflow_runs, mlflow_view

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --remote-debugging-port=0"
)
WIDTH, HEIGHT = 1400, 900
SETTLE_SECONDS = 3
PATIENCE_SECONDS = 120
MODE = "workflowType=machine_learning"
# MLflow opens an assistant in a new browser, and shows every chart's toolbar without a mouse.
TIDY = """
    localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
    localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');
    document.addEventListener('DOMContentLoaded', () => document.head.insertAdjacentHTML(
        'beforeend', '<style>.modebar-container { display: none }</style>'));
"""


def pages(store: str) -> dict[str, tuple[str, str]]:
    """Name of a screenshot -> path of its page, and selectors of elements to wait for."""
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(mlflow_runs.TESTING)
    if experiment is None:
        raise SystemExit(f"{store} has no experiment {mlflow_runs.TESTING!r}; run `dvc repro`")
    runs = f"experiments/{experiment.experiment_id}/runs"
    evaluations = client.search_runs(
        [experiment.experiment_id],
        "tags.stage = 'evaluate' and params.seed != '' and params.arm = 'mixture'",
        order_by=["metrics.AUC DESC"],
        max_results=1,
    )
    charts = f"{runs}?viewStateShareKey={mlflow_view.KEY}&compareRunsMode=CHART"
    screenshots = {"mlflow-ratio": (f"{charts}&{MODE}", ".ag-row, .scatterlayer .point")}
    if evaluations:
        run = f"{runs}/{evaluations[0].info.run_id}/artifacts/roc.png?{MODE}"
        screenshots["mlflow-run"] = (run, "img[alt='roc.png']")
    return screenshots


@contextmanager
def mlflow_server(store: str) -> Iterator[str]:
    """Address of an MLflow UI that serves the store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(PATIENCE_SECONDS):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1)
                break
            except (urllib.error.URLError, TimeoutError):
                time.sleep(1)
        else:
            raise SystemExit(f"the MLflow UI did not answer within {PATIENCE_SECONDS} seconds")
        yield address
    finally:
        os.killpg(server.pid, 15)
        server.wait()


@contextmanager
def browser(program: str) -> Iterator[str]:
    """DevTools address of a new browser with an empty profile."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [program, *QUIET.split(), f"--user-data-dir={profile}", "about:blank"],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        try:
            line = next((text for text in process.stderr if "DevTools listening" in text), "")
            if not line:
                raise SystemExit(f"{program} did not start")
            yield "http://" + line.split("ws://")[1].split("/")[0]
        finally:
            process.terminate()
            process.wait()


async def capture(devtools: str, addresses: dict[Path, tuple[str, str]]) -> None:
    """Open each address, wait for the elements its selectors name, and write a PNG."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{devtools}/json") as response:
            page = next(tab for tab in await response.json() if tab["type"] == "page")
        async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as connection:
            number = 0

            async def call(method: str, **arguments: Any) -> Any:
                nonlocal number
                number += 1
                request = number
                await connection.send_json({"id": request, "method": method, "params": arguments})
                while (message := await connection.receive_json()).get("id") != request:
                    pass
                return message.get("result", {})

            await call("Page.enable")
            await call("Page.addScriptToEvaluateOnNewDocument", source=TIDY)
            size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
            await call("Emulation.setDeviceMetricsOverride", **size)
            for path, (address, selectors) in addresses.items():
                await call("Page.navigate", url=address)
                tests = [f'document.querySelector("{each}")' for each in selectors.split(", ")]
                expression = f"Boolean({' && '.join(tests)})"
                for _ in range(PATIENCE_SECONDS):
                    await asyncio.sleep(1)
                    ready = await call("Runtime.evaluate", expression=expression)
                    if ready.get("result", {}).get("value"):
                        break
                else:
                    raise SystemExit(f"{address} did not show {selectors}")
                await asyncio.sleep(SETTLE_SECONDS)
                screenshot = await call("Page.captureScreenshot", format="png")
                path.write_bytes(base64.b64decode(screenshot["data"]))
                print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def main(store: str = "mlruns/mlflow.db", folder: str = "docs") -> None:
    """Take every screenshot."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise SystemExit(f"no browser found ({', '.join(BROWSERS)}); install Chromium")
    if not Path(store).is_file():
        raise SystemExit(f"there is no store {store}; run `dvc repro`, or name another file")
    uri = f"sqlite:///{Path(store).resolve()}"
    with mlflow_server(uri) as address, browser(program) as devtools:
        addresses = {
            Path(folder) / f"{name}.png": (f"{address}/#/{page}", selectors)
            for name, (page, selectors) in pages(uri).items()
        }
        if paths.REPORT_PAGE.is_file():
            page = paths.REPORT_PAGE.absolute().as_uri()
            addresses[Path(folder) / "report.png"] = (page, ".chart .points path, .dt-search")
        asyncio.run(capture(devtools, addresses))


if __name__ == "__main__":
    main(*sys.argv[1:3])
