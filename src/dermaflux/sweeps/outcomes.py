"""What the finished experiments of a grid measured: figures and predictions of every classifier.

Reads `params.yaml`, `reports/evaluate/` and `reports/zero_shot/` of each experiment's commit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dermaflux import paths
from dermaflux.errors import InputError
from dermaflux.params import Params, load
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
    figures: dict[Arm, list[dict[str, Any]]]
    """Test figures, one dictionary per seed."""
    scores: dict[Arm, Array]
    """(S, N) probabilities of malignancy of S seeds; none where the labels are diagnoses."""
    image_ids: Sequence[str]
    """Of the N test images, in the order of `scores`."""
    labels: Array
    """(N,) bool; malignant."""
    zero_shot: dict[str, Array] = field(default_factory=dict)
    """Model -> (N,) probabilities."""

    @property
    def n_synthetic(self) -> int:
        """Synthetic images of the mixture; of a share of the real images, only a stated number."""
        if self.params.real_fraction is not None:
            return self.params.n_synthetic or 0
        return self.params.synthetic_wanted()


def read(run: Run, revision: str) -> Experiment:
    """An experiment's figures and predictions.

    Raises `InputError` when a file is missing or the predictions of its cells are not of the same
    test images.
    """
    from ruamel.yaml import YAML

    files = Files(revision)
    raw = YAML(typ="safe").load(files.text("params.yaml"))
    params = load.parse(raw, f"params.yaml of experiment {run.name}")
    figures: dict[Arm, list[dict[str, Any]]] = {}
    scores: dict[Arm, list[Any]] = {}
    first: pd.DataFrame | None = None
    for architecture in params.train.architectures:
        for seed in params.train.seeds:
            cell = paths.cell(architecture, seed)
            content = json.loads(files.text(f"{paths.EVALUATIONS / cell}.json"))
            rows = _predictions(files, str(paths.EVALUATIONS / cell / "predictions.csv"))
            first = rows if first is None else first
            if list(first["image_id"]) != list(rows["image_id"]):
                raise InputError(
                    f"{run.name}: {cell} was tested on other images than the cells before it; "
                    "queue the experiment again"
                )
            for arm in params.train.arms:
                figures.setdefault((architecture, arm), []).append(content[arm])
                if arm in rows:
                    scores.setdefault((architecture, arm), []).append(rows[arm].to_numpy())
    import numpy as np

    assert first is not None
    return Experiment(
        run,
        params,
        figures,
        {key: np.stack(values) for key, values in scores.items()},
        list(first["image_id"]),
        (first["label"] == "malignant").to_numpy(),
        _zero_shot(files, params, first),
    )


def _zero_shot(files: Files, params: Params, tested: pd.DataFrame) -> dict[str, Array]:
    if not params.zero_shot.run:
        return {}
    rows = _predictions(files, str(paths.ZERO_SHOT / "predictions.csv")).set_index("image_id")
    rows = rows.loc[tested["image_id"]]
    return {name: rows[name].to_numpy() for name in params.zero_shot.run}


def _predictions(files: Files, path: str) -> pd.DataFrame:
    import pandas as pd

    with files.open(path) as file:
        return pd.read_csv(file)
