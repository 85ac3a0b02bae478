"""What must be equal where pools are compared: the protocol and the test split. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from dermaflux.errors import quoted
from dermaflux.params import Params
from dermaflux.params.choices import pretrains
from dermaflux.sweeps.leaderboard import schema
from dermaflux.sweeps.outcomes import Experiment


def parameters(params: Params) -> dict[str, JsonValue]:
    """Everything that decides classifiers and figures but the images of the pool, by its key.

    Models that are not trained, and how data lies on a disk, take no part.
    """
    sections = {"seed", "n_real", "real_fraction", "ingest", "audit", "train", "evaluate"}
    if params.distill.students:
        sections.add("distill")
    if pretrains(params.train.recipe):
        sections.add("pretrain")
    content = params.model_dump(mode="json", by_alias=True, include=sections)
    models = content["train"]["models"]
    content["train"]["models"] = {name: models[name] for name in params.architectures()}
    del content["evaluate"]["batch"]
    return {**_flat(content), "n_synthetic": params.synthetic_wanted()}


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for name, value in section.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def differs(ours: Mapping[str, JsonValue], theirs: Mapping[str, JsonValue]) -> str:
    """The first parameter in which two protocols differ, with both values; empty where none."""
    for key in sorted({*ours, *theirs}):
        if ours.get(key) != theirs.get(key):
            return f"{key} is {quoted(theirs.get(key))} and not {quoted(ours.get(key))}"
    return ""


def test_split(experiment: Experiment) -> schema.Test:
    """Which images the classifiers were tested on."""
    lines = sorted(
        f"{name} {'malignant' if malignant else 'benign'}"
        for name, malignant in zip(experiment.image_ids, experiment.labels, strict=True)
    )
    return schema.Test(
        hash=hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        images=len(lines),
        malignant=int(experiment.labels.sum()),
    )
