"""The page of faults shows what the benchmark measured, and that shows nothing gone wrong."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def faults() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("faults", ROOT / "benchmarks/faults.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.pop(0)


def test_the_page_holds_the_measured_table(faults: ModuleType) -> None:
    results = json.loads(faults.RESULTS.read_text())
    assert faults.table(results, faults.FAULTS) in (ROOT / "docs" / "faults.md").read_text(), (
        "copy what `python benchmarks/faults.py --table` prints into docs/faults.md"
    )
    assert faults.failures(results) == []
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    measured = {name.split("@")[0] for name in results["stages"]}
    assert measured == set(stages)


def test_what_went_wrong_is_found(faults: ModuleType) -> None:
    good = {
        "moments": 3, "exit_status": [143], "seconds": 1.0, "traceback": False, "same_bytes": True,
    }  # fmt: skip
    for change, words in (
        ({"traceback": True}, "a traceback"),
        ({"same_bytes": False}, "other bytes"),
        ({"seconds": 11.0}, "stopped after 11.0 s"),
    ):
        (found,) = faults.failures({"stages": {"ingest": {"SIGTERM": good | change}}})
        assert words in found
    assert faults.failures({"stages": {"ingest": {"SIGTERM": good}}}) == []
    assert "not tried" in faults.table({"stages": {"ingest": {"SIGTERM": good}}}, faults.FAULTS)
