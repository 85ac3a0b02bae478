"""One open MLflow run, which outlives a store that fails."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux.errors import redacted
from dermaflux.tracking import store
from dermaflux.tracking.dvc_hash import dvc_hash

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

_FLUSH_SECONDS = 5.0
_RETRY_SECONDS = 120.0
"""After a failure, so that a server that hangs slows a training down by a tenth at most."""
_MOST_PENDING = 1_000_000


class Run:
    """An open MLflow run. Metrics are sent in batches, at the latest every five seconds.

    Nothing here raises because the store fails: metrics wait for it, and what it missed is reported
    when the run is closed. Without a `client` the run could not be opened and keeps nothing.
    """

    def __init__(
        self, client: MlflowClient | None, run_id: str, experiment_id: str, name: str = ""
    ) -> None:
        self._client, self.run_id, self.experiment_id = client, run_id, experiment_id
        self._name = name or run_id
        self._pending: list[Any] = []
        self._sent = time.monotonic()
        self._missed: list[str] = []
        self._failure, self._wait_until = "", 0.0

    @property
    def client(self) -> MlflowClient:
        """The client; raises `InputError` when the store failed before the run was opened."""
        if self._client is None:
            raise store.unavailable(ConnectionError(self._failure))
        return self._client

    def attempt(self, what: str, send: Callable[[MlflowClient], object]) -> None:
        """Send `what` to the store; a failure is reported once, and what is missed at the end."""
        if not self._delivered(send):
            self._missed.append(what)

    def _delivered(self, send: Callable[[MlflowClient], object]) -> bool:
        if self._client is None or time.monotonic() < self._wait_until:
            return False
        try:
            send(self._client)
        except Exception as error:  # whatever MLflow, its store or the disk raises
            self.fail(error)
            return False
        return True

    def fail(self, error: Exception) -> None:
        """Remember that the store failed, and report it the first time."""
        if not self._failure:
            _report(
                f"the MLflow run {self._name!r} cannot be written ({store.reason(error)}); the "
                "stage goes on without it"
            )
        self._failure = store.reason(error)
        self._wait_until = time.monotonic() + _RETRY_SECONDS

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers of one step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._pending += [Metric(name, float(value), now, step) for name, value in values.items()]
        if len(self._pending) >= 500 or time.monotonic() - self._sent > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send the metrics that are pending."""
        while self._pending and self._delivered(
            functools.partial(self._send, self._pending[:1000])
        ):
            del self._pending[:1000]
        del self._pending[_MOST_PENDING:]
        self._sent = time.monotonic()

    def _send(self, batch: Sequence[Any], client: MlflowClient) -> None:
        client.log_batch(self.run_id, metrics=batch)

    def artifact(self, path: Path, folder: str = "") -> None:
        """Copy a file into the run's artefacts."""
        self.attempt(
            path.name, lambda client: client.log_artifact(self.run_id, str(path), folder or None)
        )

    def figure(self, figure: Figure, name: str) -> None:
        """Log a figure as an image file called `name`."""
        self.attempt(name, lambda client: client.log_figure(self.run_id, figure, name))

    def tag(self, name: str, value: str) -> None:
        """Set a tag."""
        self.attempt(
            f"tag {name}", lambda client: client.set_tag(self.run_id, name, redacted(value))
        )

    def outputs(self, *paths: Path) -> None:
        """Tag the run with the DVC hashes of what it wrote, by which `writer` finds it."""
        for path in paths:
            self.tag(f"output.{path.as_posix()}", dvc_hash(path))

    def close(self, status: str) -> None:
        """Send what is pending and end the run; report what the store missed."""
        self._wait_until = 0.0
        self.flush()
        self.attempt("its end", lambda client: client.set_terminated(self.run_id, status))
        missed = [f"{len(self._pending):,} metrics"] if self._pending else []
        missed += self._missed[:10]
        if missed:
            more = len(self._missed) - 10
            listed = ", ".join(missed) + (f" and {more:,} more" if more > 0 else "")
            _report(
                f"the MLflow run {self._name!r} lacks {listed} ({self._failure}); what the stage "
                "wrote is complete"
            )
        self._missed.clear()


def _report(text: str) -> None:
    print(f"tracking: {redacted(text)}", file=sys.stderr, flush=True)
