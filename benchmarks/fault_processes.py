"""Commands of `dermaflux` as processes that `faults.py` signals and watches.

Each is forked from one process that has all libraries loaded: a start costs several seconds of a
core, and the benchmark makes a thousand.
"""

from __future__ import annotations

import atexit
import importlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import psutil

ROOT = Path(__file__).parents[1]
LONGEST_SECONDS = 1800.0
"""After which a command that does not end is killed."""


@dataclass
class Ended:
    """How a command ended."""

    status: int
    """Exit status, or minus the number of the signal that ended it."""
    seconds: float
    """Of wall time; from the signal on where one was sent."""
    processor_seconds: float
    text: str
    """What it printed."""
    signalled: bool = False

    @property
    def last_line(self) -> str:
        """Its last line, where an error stands."""
        lines = self.text.strip().splitlines()
        return lines[-1][:300] if lines else ""

    @property
    def traceback(self) -> bool:
        """Whether it printed one."""
        return "Traceback (most recent call last)" in self.text

    def facts(self) -> dict[str, Any]:
        """For the results file."""
        return {
            "exit_status": self.status,
            "seconds": round(self.seconds, 2),
            "last_line": self.last_line,
            "traceback": self.traceback,
        }


class Running:
    """A command of `dermaflux` in a folder: a child that has its libraries already."""

    def __init__(self, words: list[str], folder: Path, temporary: str | None = None) -> None:
        self._output = folder.with_name(f"output-{next(_NUMBERS)}")
        self._started = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            _child(words, folder, self._output, temporary)

    def end(self, number: int | None = None, at: float = 0.0) -> Ended:
        """Wait for its end; send signal `number` after `at` seconds of processor time."""
        begin, signalled, sent_kill = self._started, False, False
        watched = psutil.Process(self.pid)
        while True:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                break
            if number is not None and not signalled and _processor_seconds(watched) >= at:
                os.kill(self.pid, number)
                begin, signalled = time.monotonic(), True
            if time.monotonic() - self._started > LONGEST_SECONDS and not sent_kill:
                os.kill(self.pid, signal.SIGKILL)
                sent_kill = True
            time.sleep(0.02 if number is not None else 0.1)
        seconds = time.monotonic() - begin
        text = self._output.read_text(encoding="utf-8", errors="replace")
        self._output.unlink()
        used = usage.ru_utime + usage.ru_stime
        return Ended(os.waitstatus_to_exitcode(status), seconds, used, text, signalled)


_NUMBERS = itertools.count()


def _processor_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system + times.children_user + times.children_system


def _child(words: list[str], folder: Path, output: Path, temporary: str | None) -> NoReturn:
    """What `dermaflux` does in a process of its own; never returns."""
    status = 1
    try:
        with output.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(folder)
        tempfile.tempdir = None
        if temporary is not None:
            os.environ["TMPDIR"] = str(folder / temporary)
        sys.argv = ["dermaflux", *words]
        from dermaflux.cli import main

        main()
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        atexit._run_exitfuncs()
        os._exit(status)


def run(
    words: list[str],
    folder: Path,
    number: int | None = None,
    at: float = 0.0,
    temporary: str | None = None,
) -> Ended:
    """Run a command of `dermaflux` in a folder to its end, as `Running.end` says.

    With `temporary`, a folder of the project takes its temporary files.
    """
    return Running(words, folder, temporary).end(number, at)


def dvc(folder: Path, *words: str) -> Ended:
    """Run a command of DVC in a folder, in a process of its own."""
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words], cwd=folder, text=True, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return Ended(done.returncode, time.monotonic() - begin, 0.0, done.stdout)


def environment(work: Path) -> None:
    """Freeze the code below `work`, and set what every process needs to find it."""
    if not (work / "src").exists():
        shutil.copytree(ROOT / "src", work / "src", ignore=shutil.ignore_patterns("__pycache__"))
    os.environ |= {
        "PYTHONPATH": str(work / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "LOKY_MAX_CPU_COUNT": "1",
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    os.environ.pop("MLFLOW_TRACKING_URI", None)


def load_libraries() -> None:
    """What stages load, once: a start costs several seconds of a core, and each fault several."""
    for name in (
        "torch", "torch.export", "diffusers", "diffusers.loaders", "transformers", "peft", "timm",
        "mlflow", "great_expectations", "sklearn.metrics", "skimage.measure", "scipy.stats",
        "joblib", "matplotlib.pyplot", "plotly.graph_objects", "pandas", "pyarrow.parquet",
        "sqlalchemy", "jinja2", "datasets", "torchvision", "safetensors.torch", "accelerate",
    ):  # fmt: skip
        importlib.import_module(name)
