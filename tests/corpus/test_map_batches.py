"""Killed runs and clusters: whoever computes, and however often it dies, the bytes stay."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ingested import settings

from dermaflux import paths
from dermaflux.corpus import ingest
from dermaflux.corpus.decoding import decode_cache, map_batches
from dermaflux.corpus.decoding.decode import CorpusImage, Task, decode_files
from dermaflux.errors import InputError
from dermaflux.sources.adapter import Problem

FIXTURES = Path(__file__).parents[1] / "fixtures"
RUN = """
import sys
sys.path.insert(0, {folder!r})
from ingested import settings
import time
from dermaflux.corpus import ingest
from dermaflux.corpus.decoding import decode_cache

def slowly(self, batch, add=decode_cache.Spool.add):
    time.sleep(0.03)
    add(self, batch)

decode_cache.BATCH, decode_cache.Spool.add = 2, slowly
ingest.run(settings())
"""


def outputs() -> dict[str, str]:
    files = [*sorted(paths.CORPUS.iterdir()), paths.QUARANTINE, paths.LEAKS, paths.INGEST_REPORT]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def remove_outputs() -> None:
    for path in (*paths.CORPUS.iterdir(), paths.QUARANTINE, paths.LEAKS, paths.INGEST_REPORT):
        path.unlink()


def recorded(batch: list[Task]) -> list[CorpusImage | Problem]:
    """`decode_files` that leaves the number of its process behind, and takes its time."""
    Path(os.environ["WORKERS_SEEN"], str(os.getpid())).touch()
    time.sleep(0.1)
    return decode_files(batch)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["dask", "ray"])
def test_a_cluster_of_two_workers_writes_the_same_bytes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    pytest.importorskip({"dask": "distributed", "ray": "ray"}[executor])
    monkeypatch.setattr(decode_cache, "BATCH", 4)
    ingest.run(settings())
    expected = outputs()
    remove_outputs()
    # Workers of a cluster are processes of their own and must find package and test.
    places = [Path(ingest.__file__).parents[2], Path(__file__).parent, FIXTURES]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, places)))
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    monkeypatch.setenv("WORKERS_SEEN", str(tmp_path / "workers"))
    (tmp_path / "workers").mkdir()
    monkeypatch.setattr(decode_cache, "decode_files", recorded)
    monkeypatch.setattr(map_batches, "_AHEAD", 2)
    ingest.run(settings(executor=executor))
    assert outputs() == expected
    workers = {path.name for path in (tmp_path / "workers").iterdir()}
    assert str(os.getpid()) not in workers
    assert len(workers) == 2


def test_a_cluster_that_is_not_installed_is_named(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(map_batches.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"install dermaflux\[dask\] or set runtime\.executor"):
        ingest.run(settings(executor="dask"))


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_bytes(data: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(ingest.__file__).parents[2])}
    environment["LOKY_MAX_CPU_COUNT"] = "2"
    code = RUN.format(folder=str(FIXTURES))

    def started() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", code], env=environment, start_new_session=True
        )

    def finished() -> int:
        """Batches that a new run would not compute again."""
        index = list(Path(".dermaflux/checkpoints/ingest").glob("*/index.jsonl"))
        return len(index[0].read_bytes().splitlines()) if index else 0

    assert started().wait() == 0
    expected = outputs()
    remove_outputs()
    moments, killed, left_behind = random.Random(0), 0, []
    for _ in range(7):
        process, before = started(), finished()
        while process.poll() is None and finished() == before:
            time.sleep(0.005)
        try:
            process.wait(moments.uniform(0.0, 0.3))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
        left_behind.append(finished())
        if process.returncode == 0:
            assert outputs() == expected
            remove_outputs()
    assert killed >= 5
    assert len(set(left_behind)) >= 4  # killed at different places
    assert started().wait() == 0
    assert outputs() == expected
    assert not any(Path(".dermaflux/checkpoints/ingest").glob("*/"))
