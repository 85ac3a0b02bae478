"""What a run tells the MLflow store, as data that can wait on disk until the store takes it.

Every call can be made twice without harm: MLflow stores equal metrics once, tags and artefacts
replace themselves, and a run is created only when none carries its key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux.tracking import seed_runs
from dermaflux.tracking.seed_runs import Parent
from dermaflux.tracking.store import experiment_id

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset as DatasetEntity
    from mlflow.entities import DatasetInput, Metric

    Call = dict[str, Any]

KEY = "run.key"
"""Tag that finds a run whose creation may or may not have reached the server."""


def create(
    experiment: str,
    name: str,
    started: int,
    parameters: Mapping[str, str],
    tags: Mapping[str, str],
    parent: Parent | None,
    datasets: Sequence[Mapping[str, Any]],
) -> Call:
    """Open a run at `started`, in ms; `datasets` are those of `runs.Dataset.described`."""
    return {
        "call": "create", "experiment": experiment, "name": name, "started": started,
        "parameters": dict(parameters), "tags": dict(tags), "datasets": [dict(x) for x in datasets],
        "parent": None if parent is None else asdict(parent),
    }  # fmt: skip


def opened(run_id: str, experiment_key: str) -> Call:
    """A run that exists."""
    return {"call": "opened", "run_id": run_id, "experiment_id": experiment_key}


def metrics(values: Sequence[Metric]) -> Call:
    """Numbers with their time, in ms, and step."""
    rows = [[metric.key, metric.value, metric.timestamp, metric.step] for metric in values]
    return {"call": "metrics", "rows": rows}


def tag(name: str, value: str) -> Call:
    """A tag."""
    return {"call": "tag", "name": name, "value": value}


def writer(name: str, experiment: str, path: Path, value: str) -> Call:
    """A tag with the id of the run that wrote `path` with the DVC hash `value`, if any did."""
    place = path.as_posix()
    return {"call": "writer", "name": name, "experiment": experiment, "path": place, "value": value}


def artifact(file: Path, folder: str) -> Call:
    """A file to store in a folder of the run's artefacts."""
    return {"call": "artifact", "file": str(file), "folder": folder}


def end(status: str, ended: int) -> Call:
    """The end of the run, in ms."""
    return {"call": "end", "status": status, "ended": ended}


def summarise(parent: Parent) -> Call:
    """Compute the mean over the seeds again."""
    return {"call": "summarise", "parent": asdict(parent)}


def title(call: Call) -> str:
    """What to call it in a message."""
    return str(call.get("name") or Path(call.get("file") or call["call"]).name)


_FIELDS = {
    "create": {"experiment", "name", "started", "parameters", "tags", "datasets", "parent"},
    "opened": {"run_id", "experiment_id"},
    "metrics": {"rows"},
    "tag": {"name", "value"},
    "writer": {"name", "experiment", "path", "value"},
    "artifact": {"file", "folder"},
    "end": {"status", "ended"},
    "summarise": {"parent"},
}
_OPENING = ("create", "opened")


def require_whole(waiting: Sequence[Any]) -> None:
    """Raise `ValueError` unless these are calls of this version, of which the first opens a run."""
    for number, call in enumerate(waiting):
        kind = call.get("call") if isinstance(call, dict) else None
        if kind not in _FIELDS or (kind in _OPENING) != (number == 0):
            raise ValueError(f"line {number + 1} is no such call")
        if missing := _FIELDS[kind] - call.keys():
            raise ValueError(f"line {number + 1} has no {min(missing)}")
    if not waiting:
        raise ValueError("it has no whole line")


def open_run(client: MlflowClient, call: Call) -> tuple[str, str]:
    """Ids of the run that `create` or `opened` names, and of its experiment."""
    if call["call"] == "opened":
        return call["run_id"], call["experiment_id"]
    from mlflow.entities import Param

    key = experiment_id(client, call["experiment"])
    tags, parent_id = dict(call["tags"]), None
    if call["parent"] is not None:
        parent = Parent(**call["parent"])
        parent_id = seed_runs.adopt(client, key, parent, call["name"])
        tags |= {seed_runs.PARENT: parent_id, **parent.tags}
    run_id = _known(client, key, tags[KEY]) if call.get("waited") else None
    if run_id is None:
        run_id = client.create_run(key, call["started"], tags, call["name"]).info.run_id
    parameters = [Param(name, value) for name, value in call["parameters"].items()]
    if parameters:
        client.log_batch(run_id, params=parameters)
    datasets = [_dataset(entry) for entry in call["datasets"]]
    for owner in filter(None, (run_id, parent_id) if datasets else ()):
        client.log_inputs(owner, datasets=datasets)
    return str(run_id), key


def _known(client: MlflowClient, experiment_key: str, key: str) -> str | None:
    found = client.search_runs([experiment_key], f"tags.`{KEY}` = '{key}'", max_results=1)
    return found[0].info.run_id if found else None


def _dataset(entry: Mapping[str, Any]) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    fields = {name: value for name, value in entry.items() if name != "context"}
    entity: DatasetEntity = Dataset(**fields)
    return DatasetInput(entity, [InputTag("mlflow.data.context", entry["context"])])


def perform(client: MlflowClient, call: Call, run_id: str, experiment_key: str) -> None:
    """Make a call on an open run; raises whatever MLflow, its store or the disk raises."""
    match call["call"]:
        case "metrics":
            from mlflow.entities import Metric

            client.log_batch(run_id, metrics=[Metric(*row) for row in call["rows"]])
        case "tag":
            client.set_tag(run_id, call["name"], call["value"])
        case "writer":
            _tag_writer(client, call, run_id)
        case "artifact":
            client.log_artifact(run_id, call["file"], call["folder"] or None)
        case "end":
            client.set_terminated(run_id, call["status"], call["ended"])
        case "summarise":
            seed_runs.settle(client, experiment_key, Parent(**call["parent"]), run_id)


def _tag_writer(client: MlflowClient, call: Call, run_id: str) -> None:
    found = find_writer(client, call["experiment"], Path(call["path"]), call["value"])
    if found is not None:
        client.set_tag(run_id, call["name"], found)


def find_writer(client: MlflowClient, experiment: str, path: Path, value: str) -> str | None:
    """Id of the latest run that wrote `path` with the DVC hash `value`; None when there is none."""
    entity = client.get_experiment_by_name(experiment)
    if entity is None:
        return None
    wrote = f"tags.`output.{path.as_posix()}` = '{value}'"
    runs = client.search_runs([entity.experiment_id], wrote, max_results=1)
    return str(runs[0].info.run_id) if runs else None
