"""What every stage does when the machine fails it: killed, stopped, out of disk, locked out, cut.

Makes a project of its own with 60 small images in which no stage is idle but `zero_shot`, whose
models are not available offline. Two `dvc repro` at once run its first stages. Then each stage runs
undisturbed from the state in which it found the project, and again from that state under each
fault. After a fault the same command runs once more, and its outputs are compared byte for byte
with the undisturbed ones. Moments of signals are uniform over the processor time of the undisturbed
run, so that another load of the machine does not move them.

    python benchmarks/faults.py [--moments 10] [--stages train@vit_mae-0 ...] [--out faults.json]

The results file is written after every fault, and what it holds is not tried again; without it
everything is. `--table` prints it as Markdown and tries nothing. Disks are made full and read-only
in a mount namespace of `unshare`, whose mounts end with it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fault_processes import ROOT, Ended, Running, dvc, environment, load_libraries, run
from fault_project import Project, build
from fault_table import Result, failures, sentence, table

RESULTS = ROOT / "benchmarks" / "results" / "faults.json"
STORE = Path("mlruns/mlflow.db")
_NAMESPACE = "DERMAFLUX_FAULTS_NAMESPACE"


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


def two_repros(project: Project) -> Result:
    """`dvc repro validate` twice at once, where nothing ran yet; afterwards all is up to date."""
    with ThreadPoolExecutor() as threads:
        ends = list(threads.map(lambda _: dvc(project.folder, "repro", "validate"), range(2)))
    if all(ended.status for ended in ends):
        raise SystemExit(ends[0].text[-5000:])
    refused = next((ended for ended in ends if ended.status), ends[-1])
    return {
        **refused.facts(),
        "exit_status": sorted(ended.status for ended in ends),
        "traceback": any(ended.traceback for ended in ends),
        "up_to_date": "up to date" in dvc(project.folder, "status", "validate", "--with-deps").text,
    }


def undisturbed(project: Project) -> dict[str, Result]:
    """Run every stage once by its command, keep the state before it, and what it wrote."""
    baselines = {}
    for stage in project.stages:
        project.clear(stage)
    shutil.rmtree(project.folder / ".dermaflux", ignore_errors=True)
    shutil.rmtree(project.folder / "mlruns", ignore_errors=True)
    for stage in project.stages:
        shutil.copytree(project.folder, project.states / stage, symlinks=True)
        before = project.size()
        ended = run(project.command(stage), project.folder)
        if ended.status:
            raise SystemExit(f"{stage}: {ended.text[-5000:]}")
        baselines[stage] = {
            "seconds": ended.seconds,
            "processor_seconds": ended.processor_seconds,
            "written": max(0, project.size() - before),
            "digests": project.digests(stage),
        }
        print(f"{stage}: {ended.processor_seconds:.1f} s of processor time", flush=True)
    return baselines


def prepared(work: Path, results: Result) -> tuple[Project, dict[str, Result]]:
    """The project after an undisturbed run; kept in `work` for the next call."""
    kept = work / "baselines.json"
    project = build(work)
    if not kept.exists():
        project.read_stages()
        both = two_repros(project)
        saved = {"two": both, "baselines": undisturbed(project), "stages": project.stages}
        kept.write_text(json.dumps(saved))
    saved = json.loads(kept.read_text())
    project.stages = saved["stages"]
    results["two dvc repro at once"] = saved["two"]
    return project, saved["baselines"]


def measure(given: argparse.Namespace) -> Result:
    """Try every fault that the results do not hold yet, and write them after each."""
    results: Result = json.loads(given.out.read_text()) if given.out.exists() else {"stages": {}}
    project, baselines = prepared(given.work, results)
    results["moments"] = given.moments
    for stage, baseline in baselines.items():
        found = results["stages"].setdefault(stage, {})
        if given.stages and stage not in given.stages:
            continue
        for fault, attempt in FAULTS.items():
            if fault in found:
                continue
            project.restore(stage)
            found[fault] = attempt(project, stage, baseline, given.moments)
            print(f"{stage}, {fault}: {sentence(found[fault], fault)}", flush=True)
            given.out.write_text(json.dumps(results, indent=1) + "\n")
    return results


def main() -> None:
    """Try, write, print what failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=10)
    parser.add_argument("--stages", nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, help="kept between calls; a temporary folder if none")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if given.table:
        print(table(json.loads(given.out.read_text()), FAULTS))
        return
    given.work = (given.work or Path(tempfile.mkdtemp())).absolute()
    if _NAMESPACE not in os.environ:
        environment(given.work)
        if shutil.which("unshare") is None:
            raise SystemExit("faults.py needs `unshare` of util-linux to make disks full")
        os.environ[_NAMESPACE] = "1"
        words = [*sys.argv, "--work", str(given.work)]
        os.execvp("unshare", ["unshare", "-rm", sys.executable, *words])
    given.out = given.out.absolute()
    load_libraries()
    results = measure(given)
    print(table(results, FAULTS))
    for problem in failures(results):
        print(f"NOT AS IT SHOULD BE: {problem}")


if __name__ == "__main__":
    main()
