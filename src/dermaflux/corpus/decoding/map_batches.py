"""Where the batches of `ingest` are computed: processes of this machine, a Dask or a Ray cluster.

Reads and writes nothing. Results come back in the order of the batches, so the executor changes no
byte of any output. ``DASK_SCHEDULER_ADDRESS`` and ``RAY_ADDRESS`` name a running cluster, whose
machines must see the data folder under the same path; without them a local cluster is started.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeVar

from dermaflux.errors import InputError
from dermaflux.launch import worker_options

Executor = Literal["loky", "dask", "ray"]
Task = TypeVar("Task")
Result = TypeVar("Result")
_AHEAD = 8  # batches per worker between two waits, where a backend cannot stream its results


def map_batches(
    function: Callable[[Task], Result], batches: Sequence[Task], executor: Executor
) -> Iterator[Result]:
    """`function` of each batch, in order, on all cores.

    Raises `InputError` when the library of a cluster is not installed.
    """
    from joblib import Parallel, delayed, effective_n_jobs

    with _cluster(executor):
        if executor != "ray":
            # A single worker computes in this process; the results are the same.
            options = worker_options() if executor == "loky" else {}
            streamed = Parallel(n_jobs=-1, return_as="generator", **options)
            yield from streamed(delayed(function)(batch) for batch in batches)
            return
        with Parallel(n_jobs=-1) as parallel:  # Ray's backend returns whole lists only
            step = _AHEAD * effective_n_jobs(-1)
            for start in range(0, len(batches), step):
                yield from parallel(
                    delayed(function)(batch) for batch in batches[start : start + step]
                )


@contextmanager
def _cluster(executor: Executor) -> Iterator[None]:
    from joblib import parallel_config

    if executor == "loky":
        yield
        return
    module = {"dask": "distributed", "ray": "ray"}[executor]
    if importlib.util.find_spec(module) is None:
        raise InputError(
            f"runtime.executor is {executor!r} but the package {module} is not installed; install "
            f"dermaflux[{executor}] or set runtime.executor to loky"
        )
    with _dask() if executor == "dask" else _ray(), parallel_config(backend=executor):
        yield


@contextmanager
def _dask() -> Iterator[None]:
    import dask
    from distributed import Client, LocalCluster
    from joblib import cpu_count

    if dask.config.get("scheduler-address", None):
        with Client():
            yield
        return
    with (
        LocalCluster(n_workers=cpu_count(), threads_per_worker=1, dashboard_address=None) as local,
        Client(local),
    ):
        yield


@contextmanager
def _ray() -> Iterator[None]:
    # Read on import; Ray otherwise sends usage statistics.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from joblib import cpu_count
    from ray.util.joblib import register_ray

    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
    if "RAY_ADDRESS" not in os.environ:
        options["num_cpus"] = cpu_count()
    ray.init(**options)
    register_ray()
    try:
        yield
    finally:
        ray.shutdown()
