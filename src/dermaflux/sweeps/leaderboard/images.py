"""What is known of a pool's images: fidelity, copies, speed and licence.

Reads `reports/audit.json` and the manifest in `synthetic/` of an experiment's commit, and the speed
from the MLflow run that sampled the pool; writes nothing.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from typing import Any

from dermaflux import paths
from dermaflux.core.files import reading
from dermaflux.errors import InputError
from dermaflux.sweeps.dvc_experiments import Files
from dermaflux.tracking import runs, store


@dataclass(frozen=True)
class Images:
    """Of one pool."""

    audit: dict[str, Any]
    """What the stage `audit` wrote."""
    licence: str
    """Of the rows of the pool; empty where DVC's cache lacks them."""
    per_second: float | None
    device: str


def read(run: str, revision: str, pool: str | None) -> Images:
    """Of an experiment; raise `InputError` when its audit is missing or damaged."""
    files = Files(revision)
    with reading(paths.AUDIT_REPORT, f"experiment {run} again"):
        audit = json.loads(files.text(str(paths.AUDIT_REPORT)))
        for name in ("images", "memorised_count"):
            float(audit[name])
        if audit["kid"] is not None:  # of a pool with too few images of each class
            float(audit["kid"])
    return Images(audit, _licence(files), *_speed(pool))


def _licence(files: Files) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with files.first(paths.SYNTHETIC, ".parquet") as file:
            found = pq.ParquetFile(file).read_row_group(0, columns=["licence"])["licence"].unique()
    except (InputError, pa.ArrowException, OSError, KeyError):
        return ""  # the pool may be in nobody's cache any more; its hash is in dvc.lock
    return ", ".join(sorted(filter(None, found.to_pylist())))


def _speed(pool: str | None) -> tuple[float | None, str]:
    """Images per second of the run that sampled these images, and on what; None where unknown."""
    file = store.sqlite_file(store.tracking_uri())
    if pool is None or (file is not None and not file.is_file()):
        return None, ""
    try:
        client = runs.connect()
        found = runs.writer(client, "generator", paths.SYNTHETIC, pool)
        if found is None:
            return None, ""
        batches = client.get_metric_history(found, "images_per_second")
        device = client.get_run(found).data.tags.get("process.device", "")
    except Exception:  # whatever MLflow raises: a speed is worth no page
        return None, ""
    return (statistics.median(each.value for each in batches) if batches else None), device
