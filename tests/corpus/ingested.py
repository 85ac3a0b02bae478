"""Parameters for `ingest` in a test, and the quarantine table it wrote."""

from __future__ import annotations

import csv
from pathlib import Path

from ruamel.yaml import YAML

from dermaflux import paths
from dermaflux.parameter_file import parse
from dermaflux.params import Params

DEFAULTS = Path(__file__).parents[2] / "params.yaml"


def settings(**changes: object) -> Params:
    raw = YAML(typ="safe").load(DEFAULTS.read_text(encoding="utf-8"))
    raw["data"], raw["ingest"] = "data", {**raw["ingest"], **changes}
    return parse(raw)


def quarantined() -> dict[str, dict[str, str]]:
    with paths.QUARANTINE.open(encoding="utf-8", newline="") as file:
        return {row["location"]: row for row in csv.DictReader(file)}
