"""What `promote` gathers about a classifier before it becomes a version of the registered model:
lineage tags, the facts of its model card, and which pictures it is familiar with.

Reads models/classifiers/, the corpus, and the hashes of generator and synthetic images; writes
nothing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux import paths
from dermaflux.classifiers.logging import mlflow_runs
from dermaflux.core import table
from dermaflux.core.vocabulary import CLASSES
from dermaflux.params import Params
from dermaflux.tracking import runs

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from mlflow import MlflowClient

    from dermaflux.registry.model_card import Facts
    from dermaflux.registry.ood import Familiarity

COLUMNS = (
    "image_id",
    "source",
    "label",
    "split",
    "sha256",
    "lesion_id",
    "duplicate_group",
    "modality",
    "skin_tone",
)
_IMAGES = 2000  # of a split: 100 MB of pixels at 128 px, 300 MB at 224 px


def tags(client: MlflowClient, params: Params, cell: str, arm: str, folder: Path) -> dict[str, str]:
    """Where a classifier comes from: hashes, revision, experiment, run and parameters."""
    config = _config(folder)
    output_hash = runs.dvc_hash(folder)
    architecture, _, seed = cell.rpartition("-")
    found: dict[str, Any] = {
        **mlflow_runs.arm_parameters(params, architecture, int(seed), arm),
        "cell": f"{cell}/{arm}",
        "output_hash": output_hash,
        "data_hash": runs.dvc_hash(paths.CORPUS),
        "git_revision": runs.git_revision(),
        "n_real": config.get("n_real", 0),
        "n_synthetic": config.get("n_synthetic", 0),
    }
    if found["n_synthetic"]:
        origins = (("synthetic_hash", paths.SYNTHETIC), ("generator_hash", paths.GENERATOR))
        found |= {key: runs.dvc_hash(path) for key, path in origins if path.is_dir()}
    if "DVC_EXP_NAME" in os.environ:
        found["DVC_EXP_NAME"] = os.environ["DVC_EXP_NAME"]
    train_run = _train_run(client, folder, output_hash)
    if train_run is not None:
        found["train_run_id"] = train_run
    return {key: str(value) for key, value in found.items()}


def _train_run(client: MlflowClient, folder: Path, output_hash: str) -> str | None:
    """Id of the run that wrote the classifier, found by the hash of what it wrote."""
    experiment = client.get_experiment_by_name(mlflow_runs.TRAINING)
    if experiment is None:
        return None
    for path, value in ((folder, output_hash), (folder.parent, runs.dvc_hash(folder.parent))):
        found = client.search_runs(
            [experiment.experiment_id],
            f"tags.`output.{path.as_posix()}` = '{value}'",
            max_results=1,
        )
        if found:
            return str(found[0].info.run_id)
    return None


def gather(
    params: Params,
    name: str,
    folder: Path,
    split: pd.DataFrame,
    lineage: dict[str, str],
    reason: str,
) -> Facts:
    """The facts of the model card of the classifier `name`."""
    from dermaflux.registry.model_card import Facts

    corpus = table.metadata(paths.CORPUS, ["source", "licence", "label"], "train")
    corpus = corpus[corpus["label"].isin(CLASSES)].fillna("licence not stated")
    counts = corpus.groupby(["source", "licence"]).size()
    return Facts(
        cell=name,
        config=_config(folder),
        validation=split,
        sources={f"{source}, {licence}": int(n) for (source, licence), n in counts.items()},
        lineage=lineage,
        reason=reason,
        promote=params.promote,
        minimum_group=params.evaluate.minimum_group,
        seed=params.seed,
    )


def familiar(folder: Path, params: Params) -> Familiarity:
    """What the classifier is familiar with: real training images; the limit is of validation ones.

    At most `_IMAGES` of each, the first by the hash of their pixels, which is a draw by chance.
    """
    from dermaflux.classifiers.model import network
    from dermaflux.registry import ood

    model, config = network.load(folder)
    training, validation = (
        ood.views(model, config, _pixels(split, int(config["image_size"])))
        for split in ("train", "validation")
    )
    return ood.fit(training, validation, params.promote.familiar_fraction)


def _pixels(split: str, side: int) -> np.ndarray[Any, Any]:
    import numpy as np

    from dermaflux.classifiers.data import samples

    rows = table.metadata(paths.CORPUS, ["image_id", "label", "sha256"], split)
    rows = rows[rows["label"].isin(CLASSES)]
    chosen = rows.sort_values(["sha256", "image_id"])["image_id"].head(_IMAGES)
    return np.asarray(samples.load(paths.CORPUS, rows, list(chosen), split, side).pixels)


def _config(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return content
