"""MLflow: one store for the main checkout and every experiment copied from it; see `store`.

Each run carries git revision, DVC experiment, parameters, and the DVC hash of every input and
output, so that an artefact is found by its hash. This module imports without MLflow; code that
computes takes a `Log` and never sees it.

A store that does not answer when a process first asks stops it, before work that costs. One that
fails later stops nothing: what it missed waits on disk (`undelivered`), and the stage goes on.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dermaflux.errors import InputError, redacted
from dermaflux.tracking import calls, killed_runs, machine, store, undelivered
from dermaflux.tracking import system_metrics as monitor
from dermaflux.tracking.calls import find_writer as writer
from dermaflux.tracking.dvc_hash import dvc_hash
from dermaflux.tracking.run import Run
from dermaflux.tracking.seed_runs import Parent
from dermaflux.tracking.store import connect, experiment_id, tracking_uri

__all__ = [
    "Dataset", "Log", "Parent", "Run", "Silent", "connect", "dvc_hash", "experiment_id", "flat",
    "git_revision", "start", "tracking_uri", "writer",
]  # fmt: skip

if TYPE_CHECKING:
    from mlflow import MlflowClient

_opened: set[str] = set()
"""Experiments in which this process had a run: what refuses another one stops no work."""


class Log(Protocol):
    """What a training loop reports to."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of one step."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """A finished file, such as an image grid."""


class Silent:
    """A `Log` that discards everything: for tests, benchmarks and other than main processes."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Drop the numbers."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Drop the file."""


@dataclass(frozen=True)
class Dataset:
    """Images that a run used, for the column Datasets of the MLflow UI.

    Attributes:
        name: such as `corpus train`.
        path: the table they come from; its DVC hash is the digest.
        counts: images per class.
        context: what they were used for.
    """

    name: str
    path: Path
    counts: Mapping[str, int]
    context: Literal["training", "validation", "testing"]

    def described(self) -> dict[str, str]:
        """What MLflow stores. Its digest column holds 36 characters, as long as a DVC hash."""
        profile = {"num_rows": sum(self.counts.values()), **self.counts}
        columns = {"image": "binary", "label": "string"}
        schema = [{"type": kind, "name": name, "required": True} for name, kind in columns.items()]
        return {
            "name": self.name,
            "digest": dvc_hash(self.path),
            "source_type": "local",
            "source": json.dumps({"uri": self.path.as_posix()}),
            "schema": json.dumps({"mlflow_colspec": schema}),
            "profile": json.dumps(profile),
            "context": self.context,
        }


def git_revision() -> str:
    """Commit of the working directory, `unknown` outside a repository."""
    command = ["git", "rev-parse", "HEAD"]  # found as for any command, by the PATH
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # nosec B603
    return done.stdout.strip() or "unknown"


def flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters as MLflow's flat names: `{"tiny": {"images": 3}}` -> `tiny.images`."""
    result: dict[str, str] = {}
    for name, value in section.items():
        if isinstance(value, Mapping):
            result.update(flat(value, f"{prefix}{name}."))
        else:
            result[f"{prefix}{name}"] = redacted(str(value))
    return result


@contextmanager
def start(
    experiment: str,
    name: str,
    parameters: Mapping[str, Any],
    inputs: Sequence[Path],
    system_metrics: bool = False,
    parent: Parent | None = None,
    datasets: Sequence[Dataset] = (),
    stage: str | None = None,
) -> Iterator[Run]:
    """Open a run; it ends FINISHED, FAILED when the block raises, or KILLED by a signal.

    `experiment` is the MLflow experiment (`generator`, `classifier`); `inputs` are tagged with
    their DVC hashes; `stage` is what comes before the name's first slash when None.
    `system_metrics` adds load and memory of the machine over time. A run with a `parent` is its
    child, distinguished from its siblings by the parameter `seed`.
    """
    client, failure = _client()
    key = uuid.uuid4().hex
    tags = _tags(key, name, stage or name.split("/")[0], inputs)
    opening = calls.create(
        experiment,
        name,
        int(time.time() * 1000),
        flat(parameters),
        tags,
        parent,
        [dataset.described() for dataset in datasets],
    )
    run = Run(key, opening)
    if client is not None:
        try:
            killed_runs.close_killed(client)
            run.opened(client, *calls.open_run(client, opening))
        except Exception as error:  # the store answered a moment ago
            if store.refuses(error) and experiment not in _opened:
                raise store.unavailable(error) from None
            failure = error
        else:
            _opened.add(experiment)
    if failure is not None:
        run.fail(failure)
    status = "KILLED"
    try:
        with monitor.watched(run.run_id, run.hold, system_metrics):
            yield run
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        run.close(status, parent)
    if not run.waits:
        undelivered.deliver_earlier(run.client)


def _tags(key: str, name: str, stage: str, inputs: Sequence[Path]) -> dict[str, str]:
    """Where, by what and from which code a run is computed."""
    tags = {
        calls.KEY: key,
        "mlflow.runName": name,
        "mlflow.source.git.commit": git_revision(),
        "stage": stage,
        "process.host": socket.gethostname(),
        "process.device": machine.device(),
        "process.id": str(os.getpid()),
        **{name: os.environ[name] for name in ("DVC_EXP_NAME", "DVC_STAGE") if name in os.environ},
        **{f"input.{path.as_posix()}": dvc_hash(path) for path in inputs},
    }
    return {name: redacted(value) for name, value in tags.items()}


def _client() -> tuple[MlflowClient | None, Exception | None]:
    """A client, or why there is none now although the store answered this process before."""
    try:
        return connect(), None
    except InputError as error:
        if not store.has_answered():
            raise
        return None, error
