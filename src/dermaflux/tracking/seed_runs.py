"""Parent runs in MLflow: one for all seeds of the same thing, the seeds its children.

The cells of a matrix are separate processes, and queue workers run side by side in copies of the
checkout. Whichever comes first creates the parent, and the others find it by the tag `seeds_key`.
An SQLite store is locked meanwhile. On a server nothing is locked: two machines may create a parent
at once, so whoever comes next, at the latest the child that ends last, lets the oldest adopt the
children of the others. A mean is computed again when a child ended meanwhile. A parent does nothing
itself, so it is never left running: it is closed when created, and updated whenever a child ends.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux.errors import redacted
from dermaflux.tracking.dvc_hash import dvc_hash
from dermaflux.tracking.store import exclusive, refuses, rejects, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT = "mlflow.parentRunId"
_MOST_CHILDREN = 10_000
_ATTEMPTS = 3


@dataclass(frozen=True)
class Parent:
    """The run above the seeds, identified by `key` within its MLflow experiment."""

    key: str
    name: str
    parameters: Mapping[str, str]
    tags: Mapping[str, str] = field(default_factory=dict)
    headline: str = "AUC"
    """The metric whose standard deviation over the seeds is logged beside its mean."""


def adopt(client: MlflowClient, experiment_id: str, parent: Parent, child_name: str) -> str:
    """Id of the parent, created when absent.

    An open run of the same child that does not say which process computes it was left by an earlier
    version of this program; it is closed as KILLED. `killed_runs` closes the others.
    """
    with exclusive(tracking_uri(), "seed_runs"):
        above = _oldest(client, experiment_id, parent)
        if above is None:
            created = _create(client, experiment_id, parent)
            return _oldest(client, experiment_id, parent) or created
        for child in _children(client, experiment_id, above):
            if (
                child.info.status == "RUNNING"
                and child.info.run_name == child_name
                and "process.id" not in child.data.tags
            ):
                client.set_terminated(child.info.run_id, "KILLED")
        return above


def _oldest(client: MlflowClient, experiment_id: str, parent: Parent) -> str | None:
    """Id of the oldest parent, to which the children of any others move; None without one."""
    present = _parents(client, experiment_id, parent)
    for younger in present[1:]:
        for child in _children(client, experiment_id, younger):
            client.set_tag(child.info.run_id, PARENT, present[0])
        try:
            client.set_tag(younger, "over", f"nothing: replaced by {present[0]}")
            client.set_tag(younger, "seeds_key", f"{parent.key} replaced")
            client.delete_run(younger)
        except Exception as error:
            # Another machine was first, or this account may edit and not delete: the key is gone.
            if not (rejects(error) or refuses(error)):
                raise
    return present[0] if present else None


def settle(client: MlflowClient, experiment_id: str, parent: Parent, child_id: str) -> None:
    """Compute the means of a child's parent again, after it has ended."""
    with exclusive(tracking_uri(), "seed_runs"):
        above = _oldest(client, experiment_id, parent)
        named = client.get_run(child_id).data.tags.get(PARENT)
        above = above or named
        if above is not None and above != named:  # its own was replaced before it was tagged
            client.set_tag(child_id, PARENT, above)
    if above is not None:
        summarise(client, experiment_id, parent, above)


def _parents(client: MlflowClient, experiment_id: str, parent: Parent) -> list[str]:
    """Ids of the runs with the parent's key, the earliest first."""
    from mlflow.entities import ViewType

    found = client.search_runs(
        [experiment_id], f"tags.seeds_key = '{parent.key}'", ViewType.ACTIVE_ONLY, 100
    )
    ordered = sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))
    return [str(run.info.run_id) for run in ordered]


def _create(client: MlflowClient, experiment_id: str, parent: Parent) -> str:
    from mlflow.entities import Param, RunTag

    # Tagged on creation: a process killed in between would leave a parent that none finds.
    tags = {**parent.tags, "seeds_key": parent.key, "over": "seeds"}
    created = client.create_run(experiment_id, tags=tags, run_name=parent.name)
    client.log_batch(
        created.info.run_id,
        params=[Param(name, value) for name, value in parent.parameters.items()],
        tags=[RunTag("mlflow.runName", parent.name)],
    )
    client.set_terminated(created.info.run_id)
    return str(created.info.run_id)


def summarise(client: MlflowClient, experiment_id: str, parent: Parent, parent_id: str) -> None:
    """Means over the latest finished child of each seed; FAILED when a seed's latest one is."""
    from mlflow.entities import Metric

    with exclusive(tracking_uri(), "seed_runs"):
        latest = _latest(client, experiment_id, parent_id)
        for _ in range(_ATTEMPTS):
            finished = [child for child in latest.values() if child.info.status == "FINISHED"]
            now = int(time.time() * 1000)
            values = means([child.data.metrics for child in finished], parent.headline)
            client.log_batch(
                parent_id, metrics=[Metric(name, value, now, 0) for name, value in values.items()]
            )
            complete = len(finished) == len(latest)
            client.set_terminated(parent_id, "FINISHED" if complete else "FAILED", now)
            before, latest = _states(latest), _latest(client, experiment_id, parent_id)
            if _states(latest) == before:
                break


def _latest(client: MlflowClient, experiment_id: str, parent_id: str) -> dict[str, Any]:
    """The latest ended child of each seed."""
    latest: dict[str, Any] = {}
    for child in _children(client, experiment_id, parent_id):
        if child.info.status in ("FINISHED", "FAILED"):
            latest.setdefault(child.data.params.get("seed", ""), child)
    return latest


def _states(children: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    return {seed: (run.info.run_id, run.info.status) for seed, run in children.items()}


def means(children: Sequence[Mapping[str, float]], headline: str) -> dict[str, float]:
    """Mean of each metric that every child has, `<headline>_sd`, and the number of `seeds`.

    Limits of a child's interval are left out: their mean is no limit of the mean's interval.
    """
    if not children:
        return {"seeds": 0.0}
    shared = set.intersection(*(set(child) for child in children))
    result = {
        name: math.fsum(child[name] for child in children) / len(children)
        for name in sorted(shared)
        if not name.endswith(("_low", "_high")) and not name.startswith("system/")
    }
    if headline in result and len(children) > 1:
        squares = math.fsum((child[headline] - result[headline]) ** 2 for child in children)
        result[f"{headline}_sd"] = math.sqrt(squares / (len(children) - 1))
    return {**result, "seeds": float(len(children))}


def _children(client: MlflowClient, experiment_id: str, parent_id: str) -> list[Any]:
    """Child runs, the latest first."""
    from mlflow.entities import ViewType

    of_parent = f"tags.`{PARENT}` = '{parent_id}'"
    order = ["attributes.start_time DESC"]
    children: list[Any] = []
    token = None
    while len(children) < _MOST_CHILDREN:
        page = client.search_runs(
            [experiment_id], of_parent, ViewType.ACTIVE_ONLY, 1000, order, page_token=token
        )
        children += page
        token = page.token
        if not token:
            break
    return children


def above_writer(client: MlflowClient, experiment: str, output: Path, arm: str) -> Any | None:
    """The parent of the latest run of an arm that wrote `output` as it is; None without one.

    Of the DVC experiment at hand, where several wrote the same.
    """
    entity = client.get_experiment_by_name(experiment)
    if entity is None:
        return None
    wrote = f"tags.`output.{output.as_posix()}` = '{dvc_hash(output)}' and params.arm = '{arm}'"
    found = client.search_runs([entity.experiment_id], wrote, max_results=100)
    children = [child for child in found if PARENT in child.data.tags]
    at_hand = os.environ.get("DVC_EXP_NAME")
    same = [child for child in children if child.data.tags.get("DVC_EXP_NAME") == at_hand]
    for child in (same or children)[:1]:
        return client.get_run(child.data.tags[PARENT])
    return None


def amend(
    client: MlflowClient,
    parent: Any,
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    known: Sequence[str],
) -> None:
    """Add to a parent what is known only beside other parents.

    Of the `known` names of metrics and tags those that it has from earlier and that are not given
    any more become NaN, since MLflow deletes no metric, or are deleted.
    """
    from mlflow.entities import Metric, RunTag

    before, now = parent.data, int(time.time() * 1000)
    stale = {name: math.nan for name in known if name in before.metrics and name not in metrics}
    with exclusive(tracking_uri(), "seed_runs"):
        client.log_batch(
            parent.info.run_id,
            metrics=[Metric(name, value, now, 0) for name, value in {**metrics, **stale}.items()],
            tags=[RunTag(name, redacted(value)) for name, value in tags.items()],
        )
        for name in known:
            if name in before.tags and name not in tags:
                client.delete_tag(parent.info.run_id, name)
