"""MLflow: one store for the main checkout and every experiment copied from it.

The store is `mlruns/mlflow.db` with artefacts in `mlruns/artifacts`, unless `MLFLOW_TRACKING_URI`
names another. Each run carries git revision, DVC experiment, parameters, and the DVC hash of every
input and output, so that an artefact is found by its hash. This module imports without MLflow;
code that computes takes a `Log` and never sees it.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dermaflux.paths import project_root
from dermaflux.tracking import seed_runs
from dermaflux.tracking.dvc_hash import dvc_hash
from dermaflux.tracking.seed_runs import Parent

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

_FLUSH_SECONDS = 5.0
_SYSTEM_SECONDS = 10.0
_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Without it the UI mistakes an experiment for one about language models and opens their page."""


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


def tracking_uri() -> str:
    """Address of the store; SQLite in the main checkout unless the environment names another."""
    default = f"sqlite:///{project_root() / 'mlruns' / 'mlflow.db'}"
    return os.environ.get("MLFLOW_TRACKING_URI") or default


def connect() -> MlflowClient:
    """A client on the initialised store. Parallel workers wait for the first one to create it."""
    from filelock import FileLock

    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    import mlflow

    root = project_root()
    (root / "mlruns").mkdir(exist_ok=True)
    mlflow.set_tracking_uri(tracking_uri())
    # Two processes that migrate one fresh SQLite file at a time break each other.
    with FileLock(root / "mlruns" / ".initialise.lock"):
        client = mlflow.MlflowClient()
        client.search_experiments(max_results=1)
    return client


def experiment_id(client: MlflowClient, name: str) -> str:
    """Id of an experiment, created when absent."""
    from filelock import FileLock

    root = project_root()
    with FileLock(root / "mlruns" / ".initialise.lock"):
        experiment = client.get_experiment_by_name(name)
        if experiment is not None:
            for key in _KIND.keys() - experiment.tags.keys():
                client.set_experiment_tag(experiment.experiment_id, key, _KIND[key])
            return str(experiment.experiment_id)
        location = None
        if tracking_uri().startswith("sqlite:"):
            location = (root / "mlruns" / "artifacts" / name).as_uri()
        return str(client.create_experiment(name, artifact_location=location, tags=_KIND))


def git_revision() -> str:
    """Commit of the working directory, `unknown` outside a repository."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def writer(client: MlflowClient, experiment: str, path: Path, value: str) -> str | None:
    """Id of the latest run that wrote `path` with the DVC hash `value`; None when there is none."""
    entity = client.get_experiment_by_name(experiment)
    if entity is None:
        return None
    wrote = f"tags.`output.{path.as_posix()}` = '{value}'"
    runs = client.search_runs([entity.experiment_id], wrote, max_results=1)
    return str(runs[0].info.run_id) if runs else None


class Run:
    """An open MLflow run. Metrics are sent in batches, at the latest every five seconds."""

    def __init__(self, client: MlflowClient, run_id: str, experiment_id: str) -> None:
        self.client, self.run_id, self.experiment_id = client, run_id, experiment_id
        self._pending: list[Any] = []
        self._sent = time.monotonic()

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers of one step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._pending += [Metric(name, float(value), now, step) for name, value in values.items()]
        if len(self._pending) >= 500 or time.monotonic() - self._sent > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send the metrics that are pending."""
        while self._pending:
            self.client.log_batch(self.run_id, metrics=self._pending[:1000])
            self._pending = self._pending[1000:]
        self._sent = time.monotonic()

    def artifact(self, path: Path, folder: str = "") -> None:
        """Copy a file into the run's artefacts."""
        self.client.log_artifact(self.run_id, str(path), folder or None)

    def figure(self, figure: Figure, name: str) -> None:
        """Log a figure as an image file called `name`."""
        self.client.log_figure(self.run_id, figure, name)

    def tag(self, name: str, value: str) -> None:
        """Set a tag."""
        self.client.set_tag(self.run_id, name, value)

    def outputs(self, *paths: Path) -> None:
        """Tag the run with the DVC hashes of what it wrote, by which `writer` finds it."""
        for path in paths:
            self.tag(f"output.{path.as_posix()}", dvc_hash(path))


def flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters as MLflow's flat names: `{"tiny": {"images": 3}}` -> `tiny.images`."""
    result: dict[str, str] = {}
    for name, value in section.items():
        if isinstance(value, Mapping):
            result.update(flat(value, f"{prefix}{name}."))
        else:
            result[f"{prefix}{name}"] = str(value)
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
    """Open a run; it ends FINISHED, or FAILED when the block raises.

    `experiment` is the MLflow experiment (`generator`, `classifier`); `inputs` are tagged with
    their DVC hashes; `stage` is what comes before the name's first slash when None.
    `system_metrics` adds load and memory of the machine over time. A run with a `parent` is its
    child, distinguished from its siblings by the parameter `seed`.
    """
    client = connect()
    from mlflow.entities import Param, RunTag  # after `connect` has set what MLflow reads on import

    tags = {
        "mlflow.runName": name,
        "mlflow.source.git.commit": git_revision(),
        "stage": stage or name.split("/")[0],
        **{key: os.environ[key] for key in ("DVC_EXP_NAME", "DVC_STAGE") if key in os.environ},
        **{f"input.{path.as_posix()}": dvc_hash(path) for path in inputs},
    }
    experiment_key = experiment_id(client, experiment)
    parent_id = None
    if parent is not None:
        parent_id = seed_runs.adopt(client, experiment_key, parent, name)
        tags |= {seed_runs.PARENT: parent_id, **parent.tags}
    created = client.create_run(experiment_key, run_name=name)
    run = Run(client, created.info.run_id, experiment_key)
    client.log_batch(
        run.run_id,
        params=[Param(key, value) for key, value in flat(parameters).items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    if datasets:
        entities = [dataset.entity() for dataset in datasets]
        for owner in filter(None, (run.run_id, parent_id)):
            client.log_inputs(owner, datasets=entities)
    status = "FAILED"
    try:
        with _system_metrics(run.run_id, system_metrics):
            yield run
        status = "FINISHED"
    finally:
        run.flush()
        client.set_terminated(run.run_id, status)
        if parent is not None and parent_id is not None:
            seed_runs.summarise(client, experiment_key, parent, parent_id)
