"""Which runs are computed at present, so that those of killed processes do not stay RUNNING.

Every open run holds a lock file in `.dermaflux/running` of the main checkout, which the system
releases when its process ends in any way, also in a container with other process numbers. The next
run started in the checkout closes those whose lock is free as KILLED. Runs of other checkouts and
machines have no file here and are left alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dermaflux.core.files import locked
from dermaflux.errors import InputError
from dermaflux.paths import project_root
from dermaflux.tracking.store import tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

_GUARD_SECONDS = 30.0


def _folder() -> Path:
    """Of the present store; a moved checkout keeps its own."""
    root = project_root()
    store = tracking_uri().replace(str(root), "")
    return root / ".dermaflux" / "running" / hashlib.sha256(store.encode()).hexdigest()[:16]


def _guard() -> Path:
    return _folder() / ".guard"


@contextmanager
def hold_lock(run_id: str) -> Iterator[None]:
    """Hold the lock of a run."""
    from filelock import FileLock

    file = _folder() / f"{run_id}.lock"
    lock = FileLock(file)
    # Without a place for locks the run stays open should this process be killed, no more.
    with (
        suppress(InputError, OSError),
        locked(_guard(), "runs cannot be opened", _GUARD_SECONDS),
    ):
        lock.acquire(timeout=0)
    try:
        yield
    finally:
        if lock.is_locked:
            file.unlink(missing_ok=True)
            lock.release()


def close_killed(client: MlflowClient) -> None:
    """Close the runs of killed processes of this checkout as KILLED."""
    from mlflow.exceptions import MlflowException

    for file in _released():
        try:
            if client.get_run(file.stem).info.status == "RUNNING":
                client.set_terminated(file.stem, "KILLED")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        file.unlink(missing_ok=True)


def _released() -> list[Path]:
    from filelock import FileLock

    files = list(_folder().glob("*.lock"))
    if not files:
        return []
    released = []
    # While a run is opened its file is there before its lock.
    with locked(_guard(), "runs cannot be opened", _GUARD_SECONDS):
        for file in files:
            with suppress(OSError), FileLock(file, timeout=0):
                released.append(file)
    return released
