"""What the stage `audit` found of the pool of one experiment.

Reads `params.yaml` and `reports/audit.json` of the experiment's commit.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from dermaflux import paths
from dermaflux.core.files import reading
from dermaflux.params import Params, load, yaml_file
from dermaflux.statistics.evaluations import Estimate
from dermaflux.sweeps.dvc_experiments import Files
from dermaflux.sweeps.grid import Run

REFERENCES = ("train", "test")
"""Splits whose real images a pool is compared with."""
FIGURES = ("fid", "inception_score", "precision", "recall")


@dataclass(frozen=True)
class AuditedPool:
    """The pool of one finished run."""

    run: Run
    params: Params
    images: int
    memorised: int
    """Of them, those that the audit rejects as copies."""
    figures: dict[str, dict[str, Estimate]]
    """Split -> figure -> value; figures that were not measured are left out."""
    reference_images: dict[str, int]
    """Split -> its real images."""

    @property
    def memorised_share(self) -> Estimate:
        """Of the images, with its exact 95 % interval (Clopper and Pearson 1934)."""
        from scipy.stats import binomtest

        limits = binomtest(self.memorised, self.images).proportion_ci(0.95, method="exact")
        return Estimate(self.memorised / self.images, float(limits.low), float(limits.high))


def read(run: Run, revision: str) -> AuditedPool:
    """Raise `InputError` when the experiment's audit is missing, damaged or of an older version."""
    files = Files(revision)
    name = f"params.yaml of experiment {run.name}"
    params = load.parse(yaml_file.parse(files.text("params.yaml"), name), name)
    with reading(paths.AUDIT_REPORT, f"experiment {run.name} again"):
        audit = json.loads(files.text(str(paths.AUDIT_REPORT)))
        return of_report(run, params, audit)


def of_report(run: Run, params: Params, audit: dict[str, Any]) -> AuditedPool:
    """The pool from the content of reports/audit.json; raises `KeyError` for what it lacks."""
    figures: dict[str, dict[str, Estimate]] = {}
    references = {}
    for split in REFERENCES:
        row = audit["fidelity"].get(split)
        if row is None:  # a corpus without that split
            continue
        figures[split] = {
            name: Estimate(*(_number(row[name].get(end)) for end in ("value", "low", "high")))
            for name in FIGURES
            if row.get(name) is not None and row[name]["value"] is not None
        }
        references[split] = int(row["reference_images"])
    return AuditedPool(
        run, params, int(audit["images"]), int(audit["memorised_count"]), figures, references
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
