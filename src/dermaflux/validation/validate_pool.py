"""Stage `validate_pool`: what Great Expectations asks of the synthetic pool.

Reads the metadata of synthetic/; writes reports/validate_pool.json when every blocking expectation
holds. A gate: it decides no byte of the pool, so that a change in a suite samples nothing again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.files import write_json
from dermaflux.params import Params
from dermaflux.validation import pool_suite

REPORT = paths.REPORTS / "validate_pool.json"


def run(params: Params) -> None:
    """Check synthetic/; raise `InputError` naming the first broken expectation and example rows."""
    images, warnings = check(params, paths.SYNTHETIC)
    write_json(REPORT, {"images": images, "warnings": warnings})
    print(f"validate_pool: {images:,} synthetic images, {warnings} warnings; {REPORT}")


def check(params: Params, pool: Path) -> tuple[int, int]:
    """(images, broken expectations that only warn) of a pool."""
    section = params.synthesize
    settings, sampler = section.settings(params.generator), None
    if settings.samples:
        values: dict[str, Any] = settings.model_dump()
        columns: tuple[str, ...] = ("steps", "guidance")
        sampler = {name: float(values[name]) for name in columns if name in values}
    frame = table.metadata(pool)
    return len(frame), pool_suite.check(frame, section, sampler)
