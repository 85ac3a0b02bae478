"""One open MLflow run, which outlives a store that fails."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux.errors import redacted
from dermaflux.tracking import calls, killed_runs, store, undelivered
from dermaflux.tracking.dvc_hash import dvc_hash
from dermaflux.tracking.seed_runs import Parent

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

_FLUSH_SECONDS = 5.0
_RETRY_SECONDS = 120.0
"""After a failure, so that a server that hangs slows a training down by a tenth at most."""
_BATCH = 1000


class Run:
    """An open MLflow run. Metrics are sent in batches, at the latest every five seconds.

    Nothing here raises because the store fails: what it does not take waits on disk
    (`undelivered`), and is sent when the store is back, at the end of the run or later.
    """

    def __init__(self, key: str, first: calls.Call) -> None:
        """`first` is how the run is opened, and `key` tells it from all others."""
        self.run_id = self.experiment_id = ""
        self._client: MlflowClient | None = None
        self._name = str(first["name"])
        self._waiting = undelivered.Waiting(key, first)
        self._pending: list[Any] = []
        self._sent = time.monotonic()
        self._lost: list[str] = []
        self._failure, self._wait_until = "", 0.0
        self._key = key
        self._running = ExitStack()
        """The lock that tells this run from one of a killed process."""

    def opened(self, client: MlflowClient, run_id: str, experiment_id: str) -> None:
        """The store has the run."""
        self._client, self.run_id, self.experiment_id = client, run_id, experiment_id
        self._running.enter_context(killed_runs.hold_lock(run_id))
        first = calls.opened(run_id, experiment_id)
        self._waiting = undelivered.Waiting(self._key, first)

    @property
    def waits(self) -> bool:
        """Whether the store lacks something of the run."""
        return self._waiting.any or self._client is None

    @property
    def client(self) -> MlflowClient:
        """The client; raises `InputError` when the store failed before the run was opened."""
        if self._client is None:
            raise store.unavailable(ConnectionError(self._failure))
        return self._client

    def fail(self, error: Exception) -> None:
        """Remember that the store failed, and report it the first time."""
        if not self._failure:
            undelivered.say(
                f"the MLflow run {self._name!r} cannot be written ({store.reason(error)}); the "
                "stage goes on, and what the run lacks waits on disk"
            )
        self._failure = store.reason(error)
        self._wait_until = time.monotonic() + _RETRY_SECONDS

    def attempt(self, what: str, send: Callable[[MlflowClient], object]) -> None:
        """Do what need not be made up for, when the store is there."""
        if self._client is None or self._waiting.any or time.monotonic() < self._wait_until:
            return
        try:
            send(self._client)
        except Exception as error:  # whatever MLflow, its store or the disk raises
            self.fail(error)
            self._lost.append(what)

    def _make(self, call: calls.Call) -> None:
        """Make a call now, or after those that wait, when the store is back."""
        if self._client is not None and not self._waiting.any:
            try:
                return calls.perform(self._client, call, self.run_id, self.experiment_id)
            except Exception as error:  # whatever MLflow, its store or the disk raises
                if store.rejects(error):
                    self._lost.append(f"{calls.title(call)} ({store.reason(error)})")
                    return
                self.fail(error)
        try:
            self._waiting.add(call)
        except Exception as error:  # a full disk stops no training either
            self._lost.append(f"{calls.title(call)} ({store.reason(error)})")
            return
        self._catch_up()

    def _catch_up(self) -> None:
        """Send what waits, unless the store failed a moment ago."""
        if not self._waiting.any or time.monotonic() < self._wait_until:
            return
        try:
            client = self._client or store.connect()
            self.run_id, self.experiment_id = self._waiting.send(client)
        except Exception as error:
            self.fail(error)
            return
        if self._client is None:
            self._running.enter_context(killed_runs.hold_lock(self.run_id))
        self._client = client
        self._lost += self._waiting.refused
        self._waiting.refused.clear()

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers of one step."""
        self.hold(values, step)
        if len(self._pending) >= _BATCH / 2 or time.monotonic() - self._sent > _FLUSH_SECONDS:
            self.flush()

    def hold(self, values: Mapping[str, float], step: int) -> None:
        """Numbers that the next `metrics` sends; another thread may call this."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._pending += [Metric(name, float(value), now, step) for name, value in values.items()]

    def flush(self) -> None:
        """Send the metrics that are pending, or keep them on disk."""
        while batch := self._pending[:_BATCH]:
            self._make(calls.metrics(batch))
            del self._pending[: len(batch)]
        self._sent = time.monotonic()

    def artifact(self, path: Path, folder: str = "") -> None:
        """Copy a file into the run's artefacts."""
        self._make(calls.artifact(path, folder))

    def figure(self, figure: Figure, name: str) -> None:
        """Log a figure as an image file called `name`."""
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / name
            figure.savefig(path)
            self.artifact(path)

    def tag(self, name: str, value: str) -> None:
        """Set a tag."""
        self._make(calls.tag(name, redacted(value)))

    def tag_writer(self, name: str, experiment: str, path: Path) -> None:
        """Tag the run with the id of the one that wrote `path` as it is, where there is one."""
        self._make(calls.writer(name, experiment, path, dvc_hash(path)))

    def outputs(self, *paths: Path) -> None:
        """Tag the run with the DVC hashes of what it wrote, by which `writer` finds it."""
        for path in paths:
            self.tag(f"output.{path.as_posix()}", dvc_hash(path))

    def close(self, status: str, parent: Parent | None = None) -> None:
        """Send what is pending and end the run; say what waits, and what the store refused."""
        self._wait_until = 0.0
        self.flush()
        self._make(calls.end(status, int(time.time() * 1000)))
        if parent is not None:
            self._make(calls.summarise(parent))
        if self._waiting.any:
            undelivered.say(
                f"{len(self._waiting):,} calls of the MLflow run {self._name!r} wait for the store "
                f"({self._failure}); `dermaflux deliver` sends them, and so does the next run"
            )
        elif self._failure and self._client is not None:
            undelivered.say(f"the MLflow run {self._name!r} is complete again")
        if self._lost:
            more = len(self._lost) - 10
            listed = ", ".join(self._lost[:10]) + (f" and {more:,} more" if more > 0 else "")
            undelivered.say(f"the MLflow run {self._name!r} lacks {listed}")
            self._lost.clear()
        self._running.close()
        if self._waiting.any:
            self._waiting.release()
            self._client = None
