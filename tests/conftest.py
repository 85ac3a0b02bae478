"""For all tests: quiet libraries, and no store or cache outside the folder of the test."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers of pytest-xdist use all cores
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "1")

# HYPOTHESIS_PROFILE=attack, in `make attack`, looks for new faults; the other finds known ones.
_COMMON = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("quick", max_examples=25, derandomize=True, database=None, **_COMMON)
settings.register_profile("attack", max_examples=1500, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


# The collector's rounds among the modules of all libraries take a fifth of the collection of tests.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def no_store_left_over() -> Iterator[None]:
    """MLflow writes its address into the environment, which the next test would use."""
    names = ("DVC_ROOT", "DVC_EXP_NAME", "DVC_STAGE", "MLFLOW_TRACKING_URI")
    for name in names:
        os.environ.pop(name, None)
    yield
    for name in names:
        os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest files: with two workers the others run beside them."""
    longest = ("test_pipeline.py", "test_controls.py")
    items.sort(key=lambda item: (*longest, item.path.name).index(item.path.name))


@pytest.fixture(scope="session")
def rendered_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's `data` folder without SIMD, rendered once for all workers; to read only."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    folder = shared / "rendered" / "data"
    with FileLock(shared / "rendered.lock"):
        if not folder.exists():
            from without_simd import without_simd

            subprocess.run(
                [sys.executable, "-m", "dermaflux", "phantom", str(folder)],
                env={**os.environ, **without_simd()},
                stdout=subprocess.DEVNULL,
                check=True,
            )
    return folder


@pytest.fixture(scope="session")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a small repository after `dvc repro`, for the Python API and its examples."""
    from finished_repository import build

    return build(tmp_path_factory.mktemp("notebook"))
