"""Hours and energy of the runs behind a page, from the MLflow store, with `report.runs`.

They belong to one machine and one day, so without that parameter the page leaves them out and stays
the same for the same inputs. Of several runs that wrote the same bytes the first counts: a later
one may have taken its work from a checkpoint. Hours are from start to end of a run. Energy is what
its GPUs drew, mean power times hours, where MLflow's monitor logged it; that of CPU and memory is
not measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from dermaflux import paths
from dermaflux.errors import redacted
from dermaflux.tracking import runs, store

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from dermaflux.reporting.lineage.artefacts import Artefact

LOCAL = "http://127.0.0.1:5000"
"""Where `make ui` serves a local store."""
_MILLISECONDS_PER_HOUR = 3_600_000
_MOST_RUNS = 1000


@dataclass(frozen=True)
class Work:
    """What it took to make one artefact."""

    hours: float
    kilowatt_hours: float | None
    """Of the GPUs; None where no power was logged."""
    metered_hours: float
    """Hours of the runs whose power was logged."""
    address: str
    """Of its run, or of the first of several."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Arm -> address of its run, where an artefact has one for each."""


def read(artefacts: Iterable[Artefact]) -> dict[str, Work]:
    """Path of an artefact -> the work of the finished runs that wrote it; others are left out.

    Raises `InputError` when the store does not answer. Without a store nothing is found.
    """
    file = store.sqlite_file(store.tracking_uri())
    if file is not None and not file.is_file():
        return {}
    ui = LOCAL if file is not None else redacted(store.tracking_uri()).rstrip("/")
    with store.answering():
        client = runs.connect()
        found = {artefact.path: _work(client, artefact, ui) for artefact in artefacts}
    return {path: work for path, work in found.items() if work is not None}


def _work(client: MlflowClient, artefact: Artefact, ui: str) -> Work | None:
    experiment = client.get_experiment_by_name(artefact.experiment)
    if experiment is None:
        return None
    wrote = client.search_runs(
        [experiment.experiment_id],
        artefact.search,
        max_results=_MOST_RUNS,
        order_by=["attributes.start_time ASC"],
    )
    first: dict[str, Any] = {}
    for run in wrote:
        if run.info.status == "FINISHED" and run.info.end_time is not None:
            first.setdefault(run.data.params.get("arm", ""), run)
    if not first:
        return None
    drawn = {
        arm: energy
        for arm, run in first.items()
        if (energy := _kilowatt_hours(client, run)) is not None
    }
    addresses = {
        arm: f"{ui}/#/experiments/{experiment.experiment_id}/runs/{run.info.run_id}"
        for arm, run in first.items()
    }
    return Work(
        hours=sum(map(_hours, first.values())),
        kilowatt_hours=sum(drawn.values()) if drawn else None,
        metered_hours=sum(_hours(first[arm]) for arm in drawn),
        address=next(iter(addresses.values())),
        addresses=addresses,
    )


def _hours(run: Any) -> float:
    return float(run.info.end_time - run.info.start_time) / _MILLISECONDS_PER_HOUR


def _kilowatt_hours(client: MlflowClient, run: Any) -> float | None:
    """Mean power of each GPU (W) times hours, in kWh."""
    names = [
        name
        for name in run.data.metrics
        if name.startswith("system/gpu_") and name.endswith("_power_usage_watts")
    ]
    if not names:
        return None
    watts = [
        fmean(point.value for point in client.get_metric_history(run.info.run_id, name))
        for name in names
    ]
    return sum(watts) * _hours(run) / 1000


def stages(work: Mapping[str, Work]) -> dict[str, list[Work]]:
    """Stage in words -> the work of its artefacts."""
    names = {
        paths.GENERATOR: "training the generator",
        paths.SYNTHETIC: "sampling the synthetic images",
        paths.AUDIT_REPORT: "auditing them",
        paths.CLASSIFIERS: "training the classifiers, all arms and seeds",
        paths.EVALUATIONS: "testing the classifiers",
    }
    found: dict[str, list[Work]] = {}
    for path, name in names.items():
        own = [each for at, each in work.items() if at.startswith(path.as_posix())]
        if own:
            found[name] = own
    return found
