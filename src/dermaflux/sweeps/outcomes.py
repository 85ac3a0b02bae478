"""Outcomes of a grid's finished experiments: metrics and predictions of every classifier.

Reads `params.yaml`, `dvc.lock`, `reports/evaluate/` and `reports/zero_shot/` of each experiment's
commit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux import paths
from dermaflux.core.files import reading
from dermaflux.errors import InputError
from dermaflux.params import Params, load, yaml_file
from dermaflux.statistics import evaluations
from dermaflux.sweeps.dvc_experiments import Files
from dermaflux.sweeps.grid import Run

if TYPE_CHECKING:
    import pandas as pd

    from dermaflux.core.arrays import Array

Arm = tuple[str, str]
"""Architecture and arm."""


@dataclass(frozen=True)
class Experiment:
    """One finished run."""

    run: Run
    params: Params
    metrics: dict[Arm, list[dict[str, Any]]]
    """Metrics on the test images, one dictionary per seed."""
    scores: dict[Arm, Array]
    """(S, N) probabilities of malignancy of S seeds; empty where the labels are diagnoses."""
    image_ids: Sequence[str]
    """Of the N test images, in the order of `scores`."""
    labels: Array
    """(N,) bool; malignant."""
    zero_shot: dict[str, Array] = field(default_factory=dict)
    """Model -> (N,) probabilities of malignancy."""
    majority_accuracy: float = math.nan
    """Accuracy of always predicting the most frequent class of the test images."""
    pool: str | None = None
    """DVC's hash of the synthetic images with their manifest; None without such a stage."""

    @property
    def n_synthetic(self) -> int:
        """Synthetic images of the mixture; with `real_fraction`, 0 unless n_synthetic is set."""
        if self.params.real_fraction is not None:
            return self.params.n_synthetic or 0
        return self.params.synthetic_wanted()


def read(run: Run, revision: str) -> Experiment:
    """An experiment's metrics and predictions.

    Raises `InputError` when a file is missing or when cells were tested on different images.
    """
    import numpy as np
    from ruamel.yaml import YAML

    files = Files(revision)
    name = f"params.yaml of experiment {run.name}"
    params = load.parse(yaml_file.parse(files.text("params.yaml"), name), name)
    metrics: dict[Arm, list[dict[str, Any]]] = {}
    scores: dict[Arm, list[Any]] = {}
    first: pd.DataFrame | None = None
    for architecture in params.architectures():
        trained = params.training(architecture).arms
        for seed in params.train.seeds:
            cell = paths.cell(architecture, seed)
            file = paths.EVALUATIONS / f"{cell}.json"
            with reading(file, f"experiment {run.name} again"):
                content = json.loads(files.text(str(file)))
                arms = evaluations.distinct(trained, content)
                for arm in arms:
                    _ = content[arm]
            rows = _predictions(files, str(paths.EVALUATIONS / cell / "predictions.csv"))
            first = rows if first is None else first
            if list(first["image_id"]) != list(rows["image_id"]):
                raise InputError(
                    f"{run.name}: {cell} was tested on other images than the cells before it; "
                    "queue the experiment again"
                )
            for arm in arms:
                metrics.setdefault((architecture, arm), []).append(content[arm])
                if arm in rows:
                    scores.setdefault((architecture, arm), []).append(rows[arm].to_numpy())
    assert first is not None
    return Experiment(
        run,
        params,
        metrics,
        {key: np.stack(values) for key, values in scores.items()},
        list(first["image_id"]),
        (first["label"] == "malignant").to_numpy(),
        _zero_shot(files, params, first),
        float(first["label"].value_counts(normalize=True).max()),
        _pool(YAML(typ="safe").load(files.text("dvc.lock"))),  # of any size: DVC wrote it
    )


def _pool(lock: dict[str, Any]) -> str | None:
    outputs = lock["stages"].get("synthesize", {}).get("outs", [])
    hashes = {output["path"]: output.get("md5") for output in outputs}
    return hashes.get(paths.SYNTHETIC.as_posix())


def _zero_shot(files: Files, params: Params, test_rows: pd.DataFrame) -> dict[str, Array]:
    if not params.zero_shot.run:
        return {}
    rows = _predictions(files, str(paths.ZERO_SHOT / "predictions.csv")).set_index("image_id")
    rows = rows.loc[test_rows["image_id"]]
    return {name: rows[name].to_numpy() for name in params.zero_shot.run}


def _predictions(files: Files, path: str) -> pd.DataFrame:
    import pandas as pd

    with files.open(path) as file, reading(Path(path), "the experiment again"):
        rows = pd.read_csv(file)
        _ = rows["image_id"], rows["label"]
        return rows
