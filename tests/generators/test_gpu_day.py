"""The script of a rented GPU: goes on where it stopped, needs neither DVC nor MLflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STUB = """#!/bin/sh
# Stands in for python: gpu_day.py part NAME OUTPUT, or gpu_day.py table FOLDER.
echo "$2 $3" >> "$CALLS"
[ "$2" = table ] && exit 0
case "$3" in "$BROKEN") exit 3 ;; esac
echo '{}' > "$4"
"""
PARTS = ["memory", "train", "train-compiled", "sample", "vit", "resnext"]


def run(folder: Path, broken: str) -> tuple[int, list[str]]:
    stub, calls = folder / "python", folder / "calls"
    stub.write_text(STUB)
    stub.chmod(0o755)
    calls.write_text("")
    done = subprocess.run(
        ["bash", BENCHMARKS / "gpu_day.sh", folder / "out"], check=False, capture_output=True,
        env=os.environ | {"PYTHON": str(stub), "CALLS": str(calls), "BROKEN": broken},
    )  # fmt: skip
    return done.returncode, [line.split()[1] for line in calls.read_text().splitlines()]


def test_a_part_that_failed_is_run_again_and_a_complete_one_is_not(tmp_path: Path) -> None:
    status, called = run(tmp_path, "sample")
    assert status == 1
    assert called[:-1] == PARTS
    assert not (tmp_path / "out" / "sample.json").exists()
    status, called = run(tmp_path, "none")
    assert status == 0
    assert called[:-1] == ["sample"]


BLOCKED = """
import sys
for name in ("mlflow", "dvc", "great_expectations"):
    sys.modules[name] = None
sys.path.insert(0, sys.argv[1])
import figure4_hours, gpu_day
output = sys.argv[2]
sys.argv = ["gpu_day.py", "part", "memory", output, "--tiny"]
gpu_day.main()
sys.argv = ["gpu_day.py", "table", output.rsplit("/", 1)[0]]
gpu_day.main()
"""


@pytest.mark.slow
def test_the_memory_part_runs_without_dvc_and_mlflow(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(BENCHMARKS), str(tmp_path / "memory.json")],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "memory.json").read_text())["rows"]
    assert [(row["images"], row["text_tokens"]) for row in rows] == [(4, 144), (1, 512)]
    assert rows[0]["planned_gib"] > 0
    page = (tmp_path / "gpu_day.md").read_text()
    assert "| memory | 4 x (64 + 144) tokens, 0 blocks recomputed | planned " in page
    assert "these figures mean nothing" in page


def test_the_table_says_hours_of_the_run_and_what_did_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu_day

    rates = {128: 40.0, 256: 20.0, 512: 5.0}
    rows = [
        {"scale": side, "text_tokens": 144, "images_per_second": rate, "mfu": 0.5}
        for side, rate in rates.items()
    ]
    rows.append({"scale": 512, "text_tokens": 512, "out_of_memory": True})
    machine = {"device": "a GPU", "torch": "2", "tiny": False}
    page = gpu_day.table({"train": {**machine, "rows": rows}})
    hours = 5 * (400_901 / 40 + 22_140 / 20 + 85_303 / 5) / 3600
    assert f"| train | the paper's run, `trim` | {hours:.1f} h |" in page
    assert "| train | 512 pixels, 512 text tokens | out of memory |" in page
    assert "`pad512`" not in page
    assert page.endswith("on a GPU, torch 2.")
