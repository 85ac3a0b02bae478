"""What waits for a store: on a disk that fills up, and with damaged files beside it."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dermaflux.errors import InputError
from dermaflux.tracking import calls, mlflow_settings, runs, undelivered
from dermaflux.tracking.run import Run


@pytest.fixture(autouse=True)
def root(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, value in mlflow_settings.WAITS.items():
        monkeypatch.setenv(name, value)
    for folder in (".dvc", "mlruns"):
        (tmp_path / folder).mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns" / "mlflow.db")
    return tmp_path


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """As on a disk that fills up, the bytes before that are written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def opening(key: str) -> calls.Call:
    return calls.create("training", key, 1, {}, {calls.KEY: key}, None, [])


def tags(run_id: str) -> dict[str, str]:
    return dict(runs.connect().get_run(run_id).data.tags)


def left(root: Path) -> list[Path]:
    return [path for path in (root / ".dermaflux").rglob("*") if path.suffix in (".jsonl", ".png")]


def test_a_full_disk_takes_one_call_and_none_beside_it(root: Path) -> None:
    waiting = undelivered.Waiting("a", opening("a"))
    with no_file_longer_than(10), pytest.raises(OSError, match="too large"):
        waiting.add(calls.tag("before", "lost"))
    assert not waiting.any
    waiting.add(calls.tag("first", "kept"))
    (root / "curve.png").write_bytes(b"x" * 5000)
    (size,) = [path.stat().st_size for path in left(root)]
    with no_file_longer_than(size + 20):
        for call in (calls.tag("second", "lost"), calls.artifact(root / "curve.png", "")):
            with pytest.raises(OSError, match="too large"):
                waiting.add(call)
    waiting.add(calls.tag("third", "kept"))
    run_id, _ = waiting.send(runs.connect())
    found = tags(run_id)
    assert {name for name, value in found.items() if value == "kept"} == {"first", "third"}
    assert "lost" not in found.values()
    assert not left(root)


DAMAGED = {
    "calls.jsonl": (
        "", "\0\0\0\n", "[1]\n", '{"call": "opened", "run_id": "x"}\n',
        '{"call": "tag", "name": "a", "value": "b"}\n',
    ),
    "delivered": ("", "x", "-1", "0", "99"),
}  # fmt: skip


def test_damaged_files_are_named_and_keep_no_other_run_back(root: Path) -> None:
    damaged = [(name, text) for name, texts in DAMAGED.items() for text in texts]
    for number, (name, text) in enumerate([*damaged, ("store.txt", "")]):
        waiting = undelivered.Waiting(str(number), opening(str(number)))
        waiting.add(calls.tag("note", "arrived"))
        waiting.release()
        (waiting.folder / name).write_text(text)
    for _ in range(2):
        with pytest.raises(InputError, match="is damaged .* restore the file") as caught:
            undelivered.run()
        assert "\n" not in str(caught.value)
    client = runs.connect()
    experiment = client.get_experiment_by_name("training")
    assert experiment is not None
    arrived = {
        run.info.run_name: (run.data.tags.get("note"), run.info.status)
        for run in client.search_runs([experiment.experiment_id])
    }
    assert arrived == {str(len(damaged)): ("arrived", "KILLED")}
    assert len(left(root)) == len(damaged)


def test_a_run_that_the_store_takes_late_has_the_lock_of_a_living_one(root: Path) -> None:
    run = Run("a", opening("a"))
    run.tag("note", "late")
    assert [path.stem for path in root.glob(".dermaflux/running/*/*.lock")] == [run.run_id]
    run.close("FINISHED")
    assert not list(root.glob(".dermaflux/running/*/*.lock"))
    assert runs.connect().get_run(run.run_id).info.status == "FINISHED"


def test_only_a_person_waits_minutes_for_a_slow_server(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = runs.connect()
    waits = []

    def deliver(_: object) -> int:
        waits.append(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"])
        return 0

    monkeypatch.setattr(undelivered, "deliver", deliver)
    undelivered.deliver_earlier(client)  # at the end of a stage
    undelivered.run()
    assert waits == [mlflow_settings.WAITS["MLFLOW_HTTP_REQUEST_TIMEOUT"], "600"]
