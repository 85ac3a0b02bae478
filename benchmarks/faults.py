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
import json
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fault_kinds import FAULTS
from fault_processes import ROOT, dvc, environment, load_libraries, run
from fault_project import Project, build
from fault_table import Result, failures, sentence, table

RESULTS = ROOT / "benchmarks" / "results" / "faults.json"
_NAMESPACE = "DERMAFLUX_FAULTS_NAMESPACE"


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
