"""Real processes, really killed: who holds a lock is told, and nothing outlives its parent."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import dermaflux
from dermaflux.core.checkpoints import checkpoint
from dermaflux.core.files import atomic_folder, locked, writing
from dermaflux.errors import InputError

SOURCE = Path(dermaflux.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCE), "DVC_NO_ANALYTICS": "1"}

HOLDER = """
import sys
from pathlib import Path
from dermaflux.core.files import atomic_folder
with atomic_folder(Path("models/vit-0")) as partial:
    (partial / "weights").write_text("first")
    print("writes", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    return tmp_path


def holder(folder: Path) -> subprocess.Popen[str]:
    """A process that writes `models/vit-0` of a folder until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER], cwd=folder, env=ENVIRONMENT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "writes\n"
    return process


def test_a_second_writer_of_an_output_is_told_who_writes_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dermaflux.core.files._WRITER_SECONDS", 1.5)
    output = Path("models/vit-0")
    first = holder(root)
    for second in (atomic_folder(output), checkpoint("train", "key", output=output)):
        with pytest.raises(InputError, match=rf"process {first.pid} on .* since 2.*stop that one"):
            second.__enter__()
    assert f"process {first.pid} on" in capfd.readouterr().err  # told while it waited
    # A copy of the checkout for an experiment, and another output, are free.
    copy = root / ".dvc" / "tmp" / "exps" / "tmp1"
    (copy / ".dvc").mkdir(parents=True)
    for free in (copy / "models" / "vit-0", Path("models/vit-1")):
        with writing(free):
            pass
    first.communicate("\n", timeout=60)
    assert (output / "weights").read_text() == "first"
    killed = holder(root)
    killed.kill()
    killed.wait()
    with atomic_folder(output) as partial, writing(output):  # the same thread again
        (partial / "weights").write_text("second")
    assert (output / "weights").read_text() == "second"
    assert [path.name for path in output.parent.iterdir()] == ["vit-0"]


def test_a_lock_that_cannot_be_made_is_one_sentence(root: Path) -> None:
    (root / "file").write_text("")
    with (
        pytest.raises(InputError, match=r"lock file .*a\.lock' cannot be used"),
        locked(root / "file" / "a.lock", "nothing can start"),
    ):
        pass


def within(seconds: float, true: Callable[[], bool]) -> bool:
    """Whether something becomes true within a time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return true()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


STAGE = """
import os, time
from pathlib import Path
from dermaflux import launch
launch.exit_on_signals()
launch.end_with_parent()
try:
    Path("started").write_text(str(os.getpid()))
    time.sleep({seconds})
finally:
    Path("closed").write_text("")
"""


@pytest.mark.skipif(shutil.which("dvc") is None, reason="no command dvc")
@pytest.mark.parametrize(
    ("number", "shell"), [(signal.SIGTERM, "replaced"), (signal.SIGKILL, "between")]
)
def test_a_stage_ends_with_dvc(root: Path, number: int, shell: str) -> None:
    (root / ".dvc").rmdir()
    (root / "stage.py").write_text(STAGE.format(seconds=120))
    command = f"{sys.executable} stage.py"
    if shell == "between":  # a shell that has more to do stays between DVC and the stage
        command += " && echo done"
    (root / "dvc.yaml").write_text(f"stages:\n  s:\n    cmd: {command}\n")
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "-q", "--no-scm"], env=ENVIRONMENT, check=True)
    repro = subprocess.Popen([*dvc, "repro", "-q"], env=ENVIRONMENT)
    started = root / "started"
    assert within(60, lambda: started.exists() and started.read_text() != "")
    stage = int(started.read_text())
    repro.send_signal(number)
    repro.wait(timeout=60)
    assert within(5, lambda: not alive(stage))
    assert (root / "closed").exists()


def test_a_stage_started_by_hand_outlives_its_shell(root: Path) -> None:
    (root / "stage.py").write_text(STAGE.format(seconds=3))
    shell = subprocess.Popen(["sh", "-c", f"{sys.executable} stage.py & wait"], env=ENVIRONMENT)
    assert within(30, lambda: (root / "started").exists())
    shell.kill()
    shell.wait()
    stage = int((root / "started").read_text())
    assert not within(1.5, lambda: not alive(stage))
    assert within(10, lambda: not alive(stage))


WORKERS = """
import os, time
from pathlib import Path
from dermaflux.corpus.decoding.map_batches import map_batches
def slow(number):
    Path(f"worker-{os.getpid()}").touch()
    time.sleep(60)
if __name__ == "__main__":
    list(map_batches(slow, range(4), "loky"))
"""


def test_workers_end_with_the_process_that_started_them(root: Path) -> None:
    (root / "work.py").write_text(WORKERS)
    environment = {**ENVIRONMENT, "LOKY_MAX_CPU_COUNT": "2"}
    process = subprocess.Popen([sys.executable, "work.py"], env=environment)
    assert within(60, lambda: len(list(root.glob("worker-*"))) == 2)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.kill()
    process.wait()
    assert within(5, lambda: not any(alive(child.pid) for child in children))
