"""What an MLflow store missed waits on disk, until the store is back: `dermaflux deliver`.

A run has a folder `.dermaflux/undelivered/<store>/<run>` in the main checkout once a call failed:
`calls.jsonl`, one call a line in their order, `delivered`, how many of them the store has, and
copies of artefacts. The process that computes the run holds its lock and sends the calls itself;
those of an ended process are sent by the next run of the checkout that ends, or by
`dermaflux deliver`, and a run that its process never ended is closed as KILLED.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dermaflux.core.files import write_text
from dermaflux.errors import InputError, one_line, redacted
from dermaflux.paths import project_root
from dermaflux.tracking import calls, mlflow_settings, store

if TYPE_CHECKING:
    from filelock import FileLock
    from mlflow import MlflowClient

_CALLS, _DELIVERED, _STORE = "calls.jsonl", "delivered", "store.txt"


def _place() -> Path:
    return project_root() / ".dermaflux" / "undelivered"


def _folder() -> Path:
    """Of the present store; without the password, which may change. A moved checkout keeps it."""
    address = redacted(store.tracking_uri()).replace(str(project_root()), "")
    return _place() / hashlib.sha256(address.encode()).hexdigest()[:16]


class Waiting:
    """The calls of one run that the store has not taken yet."""

    def __init__(self, key: str, first: calls.Call, folder: Path | None = None) -> None:
        """`first` is how the run is opened."""
        self.folder = folder or _folder() / key
        self._first = first
        self._lock: FileLock | None = None
        self._ids: tuple[str, str] | None = None
        self.refused: list[str] = []
        """Calls that the store will never take, with its reason."""

    def __len__(self) -> int:
        return len(_lines(self.folder / _CALLS)) - _number(self.folder / _DELIVERED)

    @property
    def any(self) -> bool:
        """Whether a call waits."""
        return self._lock is not None

    def add(self, call: calls.Call) -> None:
        """Keep a call on disk, with a copy of its file. Raises `OSError` where that fails."""
        self._begin()
        path = self.folder / _CALLS
        before = path.stat().st_size
        kept = self.folder / "files" / str(before)
        try:
            if call["call"] == "artifact":
                kept.mkdir(parents=True)
                copy = Path(shutil.copy(call["file"], kept))
                call = {**call, "file": copy.relative_to(self.folder).as_posix()}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(call) + "\n")
        except OSError:  # a full disk takes half a line, which would spoil the next one
            os.truncate(path, before)
            shutil.rmtree(kept, ignore_errors=True)
            raise

    def _begin(self) -> None:
        if self._lock is not None:
            return
        lock = _lock(self.folder)
        lock.acquire(timeout=10)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.folder.parent / _STORE, redacted(store.tracking_uri()) + "\n")
            first = {**self._first, "waited": True}
            write_text(self.folder / _CALLS, json.dumps(first) + "\n")
        except OSError:  # calls without the first one could never be sent
            shutil.rmtree(self.folder, ignore_errors=True)
            lock.release()
            raise
        self._lock = lock

    def send(self, client: MlflowClient) -> tuple[str, str]:
        """Make the calls that wait, in their order, and forget them; ids of run and experiment.

        Raises what the store raises; the next attempt begins with the call that failed. A call
        that the store understood and refuses is left out and listed in `refused`.
        """
        waiting = _calls(self.folder / _CALLS)
        delivered = _number(self.folder / _DELIVERED)
        if not 1 <= delivered <= len(waiting):
            raise _Damaged(self.folder / _DELIVERED, f"{delivered} of {len(waiting)} calls")
        if self._ids is None:
            self._ids = calls.open_run(client, waiting[0])
        for number, call in enumerate(waiting[delivered:], delivered):
            if call["call"] == "artifact":
                call["file"] = str(self.folder / call["file"])
            try:
                calls.perform(client, call, *self._ids)
            except Exception as error:
                if not store.rejects(error) and not isinstance(error, FileNotFoundError):
                    raise
                self.refused.append(f"{calls.title(call)} ({store.reason(error)})")
            write_text(self.folder / _DELIVERED, str(number + 1))
        (self.folder / _CALLS).unlink()  # first: without its other files it could not be sent
        shutil.rmtree(self.folder)
        self.release()
        return self._ids

    def release(self) -> None:
        """Leave what waits to others."""
        if self._lock is not None:
            if not self.folder.exists():
                Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()
            self._lock = None


def _lock(folder: Path) -> FileLock:
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.with_suffix(".lock"))


def _lines(path: Path) -> list[str]:
    """Whole lines; a killed process may have left half of one."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return text.split("\n")[:-1]


class _Damaged(InputError):
    """A file that this module did not write as it is."""

    def __init__(self, path: Path, problem: object) -> None:
        super().__init__(
            f"{path} is damaged ({one_line(problem, 100)}); restore the file, or delete its "
            "folder, with which goes what the store lacks of that run"
        )


def _calls(path: Path) -> list[calls.Call]:
    try:
        found = [json.loads(line) for line in _lines(path)]
        calls.require_whole(found)
    except (ValueError, TypeError) as error:
        raise _Damaged(path, error) from None
    return found


def _number(path: Path) -> int:
    """How many calls the store has; the first, which opens the run, is made anew each time."""
    try:
        return int(path.read_text(encoding="utf-8")) if path.is_file() else 1
    except ValueError as error:
        raise _Damaged(path, error) from None


@contextmanager
def _abandoned() -> Iterator[list[Waiting]]:
    """Those of the present store whose process has ended, the oldest first, locked meanwhile."""
    from filelock import Timeout

    taken = []
    for file in _folder().glob(f"*/{_CALLS}"):
        lock = _lock(file.parent)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            continue
        waiting = Waiting(file.parent.name, {}, file.parent)
        waiting._lock = lock
        if file.is_file():
            taken.append(waiting)
        else:  # delivered a moment ago
            waiting.release()
    taken.sort(key=lambda waiting: (waiting.folder / _CALLS).stat().st_mtime_ns)
    try:
        yield taken
    finally:
        for waiting in taken:
            waiting.release()


def deliver(client: MlflowClient) -> int:
    """Send what ended processes left; return the number of runs. Raises what the store raises.

    What keeps one run back, a damaged file or a permission, is raised after the others are sent.
    """
    done, kept_back = 0, None
    with _abandoned() as left:
        for waiting in left:
            try:
                _close(waiting)
                waiting.send(client)
            except Exception as error:  # whatever MLflow, its store or the disk raises
                if not isinstance(error, _Damaged) and not store.refuses(error):
                    raise
                kept_back = kept_back or error
                continue
            done += 1
            for refusal in waiting.refused:
                say(f"the MLflow store refuses {refusal} of an earlier run; it is not logged")
    if kept_back is not None:
        raise kept_back
    return done


def _close(waiting: Waiting) -> None:
    """End a run whose process was killed, when it made its last call."""
    path = waiting.folder / _CALLS
    if "end" not in [call["call"] for call in _calls(path)]:
        ended = int(path.stat().st_mtime * 1000)
        write_text(path, "".join(f"{line}\n" for line in _lines(path)))
        waiting.add(calls.end("KILLED", ended))


def deliver_earlier(client: MlflowClient) -> None:
    """Send what ended processes left; a store that fails again leaves it where it is."""
    try:
        done = deliver(client)
    except Exception as error:  # whatever MLflow, its store or the disk raises
        say(f"earlier runs still cannot be delivered ({store.reason(error)}); they are kept")
        return
    if done:
        say(f"delivered earlier runs that had waited for the MLflow store: {done:,}")


def say(text: str) -> None:
    """One line on standard error."""
    print(f"tracking: {redacted(text)}", file=sys.stderr, flush=True)


def run() -> None:
    """`dermaflux deliver`: raises `InputError` when the store does not take what waits."""
    began, client = time.monotonic(), store.connect()
    with store.answering(), mlflow_settings.patience():
        done = deliver(client)
    open_still = len(list(_folder().glob(f"*/{_CALLS}")))
    elsewhere = [
        path.read_text(encoding="utf-8").strip()
        for path in sorted(_place().glob(f"*/{_STORE}"))
        if path.parent != _folder() and any(path.parent.glob(f"*/{_CALLS}"))
    ]
    print(f"deliver: {done:,} runs delivered in {time.monotonic() - began:.1f} s.")
    if open_still:
        print(f"{open_still:,} more are still running and will deliver their own calls.")
    if elsewhere:
        raise InputError(
            f"other runs wait for {', '.join(elsewhere)}; set {store.VARIABLE} to that store and "
            "run `dermaflux deliver` again"
        )
