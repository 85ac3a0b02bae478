"""MLflow: one store for the main checkout and every experiment copied from it; see `store`.

Each run carries git revision, DVC experiment, parameters, and the DVC hash of every input and
output, so that an artefact is found by its hash. This module imports without MLflow; code that
computes takes a `Log` and never sees it.

A store that does not answer when a process first asks stops it, before work that costs. One that
fails later stops nothing: what it missed is told in one sentence, and the stage goes on.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dermaflux.errors import InputError, redacted
from dermaflux.tracking import killed_runs, machine, seed_runs, store
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
    from mlflow.entities import DatasetInput

_SYSTEM_SECONDS = 10.0


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

    def entity(self) -> DatasetInput:
        """What MLflow stores. Its digest column holds 36 characters, as long as a DVC hash."""
        from mlflow.entities import Dataset as Entity
        from mlflow.entities import DatasetInput, InputTag

        profile = {"num_rows": sum(self.counts.values()), **self.counts}
        columns = {"image": "binary", "label": "string"}
        schema = [{"type": kind, "name": name, "required": True} for name, kind in columns.items()]
        entity = Entity(
            name=self.name,
            digest=dvc_hash(self.path),
            source_type="local",
            source=json.dumps({"uri": self.path.as_posix()}),
            schema=json.dumps({"mlflow_colspec": schema}),
            profile=json.dumps(profile),
        )
        return DatasetInput(entity, [InputTag("mlflow.data.context", self.context)])


def git_revision() -> str:
    """Commit of the working directory, `unknown` outside a repository."""
    command = ["git", "rev-parse", "HEAD"]  # found as for any command, by the PATH
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # nosec B603
    return done.stdout.strip() or "unknown"


def writer(client: MlflowClient, experiment: str, path: Path, value: str) -> str | None:
    """Id of the latest run that wrote `path` with the DVC hash `value`; None when there is none."""
    entity = client.get_experiment_by_name(experiment)
    if entity is None:
        return None
    wrote = f"tags.`output.{path.as_posix()}` = '{value}'"
    runs = client.search_runs([entity.experiment_id], wrote, max_results=1)
    return str(runs[0].info.run_id) if runs else None


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
def _system_metrics(run_id: str, enabled: bool) -> Iterator[None]:
    """MLflow's own monitor: CPU, memory, disk, network and GPU as `system/...`, every 10 s.

    It takes less than 1 % of a core and stops before the run is closed.
    """
    if not enabled:
        yield
        return
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, sampling_interval=_SYSTEM_SECONDS)
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


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
    tags = {
        "mlflow.runName": name,
        "mlflow.source.git.commit": git_revision(),
        "stage": stage or name.split("/")[0],
        "process.host": socket.gethostname(),
        "process.device": machine.device(),
        "process.id": str(os.getpid()),
        **{key: os.environ[key] for key in ("DVC_EXP_NAME", "DVC_STAGE") if key in os.environ},
        **{f"input.{path.as_posix()}": dvc_hash(path) for path in inputs},
    }
    run, parent_id = Run(None, "", "", name), None
    if client is not None:
        try:
            run, parent_id = _create(client, experiment, name, parameters, tags, parent, datasets)
        except Exception as error:  # the store answered a moment ago
            failure = error
    if failure is not None:
        run.fail(failure)
    status = "KILLED"
    try:
        with (
            killed_runs.hold_lock(run.run_id) if run.run_id else nullcontext(),
            _system_metrics(run.run_id, system_metrics and bool(run.run_id)),
        ):
            yield run
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        run.close(status)
        if parent is not None and parent_id is not None:
            above = parent_id
            run.attempt(
                "the mean over its seeds",
                lambda client: seed_runs.summarise(client, run.experiment_id, parent, above),
            )


def _client() -> tuple[MlflowClient | None, Exception | None]:
    """A client, or why there is none now although the store answered this process before."""
    try:
        return connect(), None
    except InputError as error:
        if not store.has_answered():
            raise
        return None, error


def _create(
    client: MlflowClient,
    experiment: str,
    name: str,
    parameters: Mapping[str, Any],
    tags: Mapping[str, str],
    parent: Parent | None,
    datasets: Sequence[Dataset],
) -> tuple[Run, str | None]:
    """The run with parameters and tags, and the id of its parent."""
    from mlflow.entities import Param, RunTag

    killed_runs.close_killed(client)
    experiment_key = experiment_id(client, experiment)
    parent_id = None
    if parent is not None:
        parent_id = seed_runs.adopt(client, experiment_key, parent, name)
        tags = {**tags, seed_runs.PARENT: parent_id, **parent.tags}
    created = client.create_run(experiment_key, run_name=name)
    run = Run(client, created.info.run_id, experiment_key, name)
    client.log_batch(
        run.run_id,
        params=[Param(key, value) for key, value in flat(parameters).items()],
        tags=[RunTag(key, redacted(value)) for key, value in tags.items()],
    )
    if datasets:
        entities = [dataset.entity() for dataset in datasets]
        for owner in filter(None, (run.run_id, parent_id)):
            client.log_inputs(owner, datasets=entities)
    return run, parent_id
