"""Load and memory of the machine over time, as `system/...` of a run.

MLflow's monitor asks the server for its run at every sample and ends for good when that fails once.
This one hands what MLflow measures to the `Run`, which keeps it while a server is away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_SECONDS = 10.0


class _Sink:
    """What MLflow's monitor calls its logger."""

    def __init__(self, keep: Callable[[Mapping[str, float], int], None]) -> None:
        self.record_metrics = keep


@contextmanager
def watched(
    run_id: str, keep: Callable[[Mapping[str, float], int], None], enabled: bool
) -> Iterator[None]:
    """CPU, memory, disk, network and GPU every 10 s, for less than 1 % of a core.

    `keep` gets the numbers and the step, in a thread of its own.
    """
    if not enabled:
        yield
        return
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    class Monitor(SystemMetricsMonitor):
        """Independent of the server."""

        def monitor(self) -> None:
            """Collect and hand over until the run ends."""
            own: Any = self
            while not own._shutdown_event.is_set():
                for _ in range(own.samples_before_logging):
                    own.collect_metrics()
                    if own._shutdown_event.wait(own.sampling_interval):
                        return
                own.publish_metrics(own.aggregate_metrics())

    open_monitor: Any = Monitor
    monitor = open_monitor(run_id, sampling_interval=_SECONDS)
    monitor.mlflow_logger = _Sink(keep)
    monitor.start()
    try:
        yield
    finally:
        monitor._shutdown_event.set()
        if monitor._process is not None:
            monitor._process.join()
