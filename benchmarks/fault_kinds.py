"""What `faults.py` does to a stage: signals, full disks, a store in use, cut files, a second one.

Each fault begins with the state in which the stage found the project, and says whether the outputs
after it are those of the undisturbed run.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from fault_processes import Ended, Running, run
from fault_project import Project
from fault_table import Result

STORE = Path("mlruns/mlflow.db")


def again(project: Project, stage: str, expected: dict[str, str]) -> Result:
    """Run the stage once more, undisturbed; whether its outputs are those of the first time."""
    project.clear(stage)
    ended = run(project.command(stage), project.folder)
    return {"rerun_exit_status": ended.status, "same_bytes": project.digests(stage) == expected,
            **({} if ended.status == 0 else {"rerun_last_line": ended.last_line})}  # fmt: skip


def signalled(number: int) -> Callable[..., Result]:
    """The fault of a signal at random moments, again and again; then the stage ends its work."""

    def fault(project: Project, stage: str, baseline: Result, moments: int) -> Result:
        draw = random.Random(f"{stage} {number}")
        hit: list[Ended] = []
        for _ in range(5 * moments):  # work that a cache remembers may end before the moment
            project.clear(stage)
            at = draw.random() * baseline["processor_seconds"]
            ended = run(project.command(stage), project.folder, number, at)
            hit += [ended] if ended.signalled else []
            if len(hit) == moments:
                break
        if not hit:
            raise SystemExit(f"{stage} ended before each of {5 * moments} signals; try again")
        return {
            "moments": len(hit),
            "exit_status": sorted({ended.status for ended in hit}),
            "seconds": max(round(ended.seconds, 2) for ended in hit),
            "last_line": hit[-1].last_line,
            "traceback": any(ended.traceback for ended in hit),
            **again(project, stage, baseline["digests"]),
        }

    return fault


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A file system over a folder, or the folder once more with other options."""
    subprocess.run(["mount", *options, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def disk_full(project: Project, stage: str, baseline: Result, moments: int) -> Result:
    """A tmpfs with room for a part of what the stage writes; then the same on a disk with room."""
    ended = None
    for share in (0.5, 0.2, 0.05, 0.0):
        project.restore(stage)
        before = project.size()
        room = before + int(share * baseline["written"])
        kept = project.folder.with_name("filled")
        shutil.rmtree(kept, ignore_errors=True)
        project.folder.rename(kept)
        project.folder.mkdir()
        with mounted(project.folder, "-t", "tmpfs", "-o", f"size={room + 65536}", "none"):
            shutil.copytree(kept, project.folder, symlinks=True, dirs_exist_ok=True)
            (project.folder / ".temporary").mkdir()
            project.fill(leaving=int(share * baseline["written"]))
            ended = run(project.command(stage), project.folder, temporary=".temporary")
            shutil.rmtree(kept)
            (project.folder / ".filling").unlink()
            shutil.copytree(project.folder, kept, symlinks=True)
        project.folder.rmdir()
        kept.rename(project.folder)
        if ended.status:
            break
    assert ended is not None
    left = baseline["written"] * share
    return {"free_bytes": int(left), **ended.facts(), **again(project, stage, baseline["digests"])}


def read_only(project: Project, stage: str, baseline: Result, moments: int) -> Result:
    """The whole project on a disk mounted read-only, but for the folder of temporary files."""
    project.restore(stage)
    bind = ("--bind", str(project.folder))
    with mounted(project.folder, *bind):
        subprocess.run(
            ["mount", "-o", "remount,ro,bind", str(project.folder)], check=True, capture_output=True
        )
        ended = run(project.command(stage), project.folder)
    return {**ended.facts(), **again(project, stage, baseline["digests"])}


def store_locked(project: Project, stage: str, baseline: Result, moments: int) -> Result:
    """Another program holds MLflow's database for itself as long as the stage runs."""
    project.restore(stage)
    if not (project.folder / STORE).exists():
        return {"not_applicable": "no store yet"}
    other = sqlite3.connect(project.folder / STORE, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        ended = run(project.command(stage), project.folder)
    finally:
        other.execute("ROLLBACK")
        other.close()
    return {**ended.facts(), **again(project, stage, baseline["digests"])}


def store_corrupted(project: Project, stage: str, baseline: Result, moments: int) -> Result:
    """MLflow's database with noise in its pages; put back for the run after it."""
    project.restore(stage)
    store = project.folder / STORE
    if not store.exists():
        return {"not_applicable": "no store yet"}
    whole = store.read_bytes()
    store.write_bytes(whole[:100] + random.Random(0).randbytes(len(whole) // 2))
    ended = run(project.command(stage), project.folder)
    if ended.status:
        store.write_bytes(whole)
    return {**ended.facts(), **again(project, stage, baseline["digests"])}


def inputs_cut(project: Project, stage: str, baseline: Result, moments: int) -> Result:
    """The largest file of each input cut to half, one after the other."""
    project.restore(stage)
    ends: dict[str, Ended] = {}
    for place in project.inputs(stage):
        files = [place] if place.is_file() else [f for f in place.rglob("*") if f.is_file()]
        file = max(files, key=lambda file: file.stat().st_size, default=None)
        if file is None or file.stat().st_size < 2:
            continue
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        project.clear(stage)
        ends[str(file.relative_to(project.folder))] = run(project.command(stage), project.folder)
        file.write_bytes(whole)
    if not ends:
        return {"not_applicable": "it reads nothing of another stage"}
    refused = {name: ended for name, ended in ends.items() if ended.status}
    last = list((refused or ends).values())[-1]
    return {
        **last.facts(),
        "exit_status": sorted({ended.status for ended in ends.values()}),
        "seconds": max(round(ended.seconds, 2) for ended in ends.values()),
        "traceback": any(ended.traceback for ended in ends.values()),
        "files": {name: ended.last_line for name, ended in refused.items()},
        "accepted": sorted(set(ends) - set(refused)),
        **again(project, stage, baseline["digests"]),
    }


def checkpoint_cut(project: Project, stage: str, baseline: Result, moments: int) -> Result:
    """Killed late, then every file of its checkpoint cut to half."""
    for share in (0.8, 0.65, 0.9, 0.5):
        project.restore(stage)
        others = set(project.checkpoint_files())
        at = share * baseline["processor_seconds"]
        run(project.command(stage), project.folder, signal.SIGKILL, at)
        files = [file for file in project.checkpoint_files() if file not in others]
        if files:
            break
    else:
        return {"not_applicable": "it has no checkpoint"}
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    project.clear(stage)
    ended = run(project.command(stage), project.folder)
    told = [line for line in ended.text.splitlines() if "damaged" in line or "made again" in line]
    same = project.digests(stage) == baseline["digests"]
    return {**ended.facts(), "files": len(files), "last_line": " / ".join(told)[:300],
            "rerun_exit_status": ended.status, "same_bytes": same}  # fmt: skip


def two_at_once(project: Project, stage: str, baseline: Result, moments: int) -> Result:
    """The same command in two processes at one moment."""
    project.restore(stage)
    both = [Running(project.command(stage), project.folder) for _ in range(2)]
    ends = [running.end() for running in both]
    failed = [ended for ended in ends if ended.status]
    shown = (failed or ends)[-1]
    return {
        **shown.facts(),
        "exit_status": sorted(ended.status for ended in ends),
        "traceback": any(ended.traceback for ended in ends),
        "rerun_exit_status": min(ended.status for ended in ends),
        "same_bytes": project.digests(stage) == baseline["digests"],
    }


FAULTS: dict[str, Callable[[Project, str, Result, int], Result]] = {
    "kill -9": signalled(signal.SIGKILL),
    "SIGTERM": signalled(signal.SIGTERM),
    "disk full": disk_full,
    "disk read-only": read_only,
    "store locked": store_locked,
    "store corrupted": store_corrupted,
    "inputs cut": inputs_cut,
    "checkpoint cut": checkpoint_cut,
    "two at once": two_at_once,
}
