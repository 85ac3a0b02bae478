"""Lineage of a classifier that `promote` registers: tags, model card facts, and its OOD detector.

Reads models/classifiers/, the corpus, and the hashes of generator and synthetic images; writes
nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
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
    from dermaflux.registry.ood import OODDetector

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
    """Provenance of a classifier: hashes, git revision, DVC experiment, MLflow run, parameters."""
    config = _config(folder)
    output_hash = runs.dvc_hash(folder)
    architecture, _, seed = cell.rpartition("-")
    values: dict[str, Any] = {
        **mlflow_runs.arm_parameters(params, architecture, int(seed), arm),
        "cell": f"{cell}/{arm}",
        "output_hash": output_hash,
        "data_hash": runs.dvc_hash(paths.CORPUS),
        "git_revision": runs.git_revision(),
        "n_real": config.get("n_real", 0),
        "n_synthetic": config.get("n_synthetic", 0),
    }
    origins = {}
    if _saw_pool(config):
        origins |= {"synthetic_hash": paths.SYNTHETIC, "generator_hash": paths.GENERATOR}
    if "pretraining" in config:
        origins["pretrained_hash"] = paths.PRETRAINED
    values |= {key: runs.dvc_hash(path) for key, path in origins.items() if path.is_dir()}
    if "start_weights" in config:
        values["start_weights"] = config["start_weights"]
    if "teacher" in config:
        values |= runs.flat({"teacher": config["teacher"]})
    if "DVC_EXP_NAME" in os.environ:
        values["DVC_EXP_NAME"] = os.environ["DVC_EXP_NAME"]
    train_run = _train_run(client, folder, output_hash)
    if train_run is not None:
        values["train_run_id"] = train_run
    return {key: str(value) for key, value in values.items()}


def _saw_pool(config: Mapping[str, Any]) -> bool:
    """Whether the classifier, its pre-training or its teacher learned from synthetic images."""
    if config.get("n_synthetic") or config.get("pretraining", {}).get("synthetic"):
        return True
    taught = "teacher" in config
    return taught and _saw_pool(_config(paths.CLASSIFIERS / config["teacher"]["cell"]))


def _train_run(client: MlflowClient, folder: Path, output_hash: str) -> str | None:
    """Id of the run that wrote the classifier, looked up by the hash of its output."""
    experiment = client.get_experiment_by_name(mlflow_runs.TRAINING)
    if experiment is None:
        return None
    for path, value in ((folder, output_hash), (folder.parent, runs.dvc_hash(folder.parent))):
        matches = client.search_runs(
            [experiment.experiment_id],
            f"tags.`output.{path.as_posix()}` = '{value}'",
            max_results=1,
        )
        if matches:
            return str(matches[0].info.run_id)
    return None


def card_facts(
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


def fit_ood_detector(folder: Path, params: Params) -> OODDetector:
    """The detector of a classifier: fitted to training images, with its limit on validation images.

    At most `_IMAGES` real images of each split, the first by the hash of their bytes, which is a
    random sample.
    """
    from dermaflux.classifiers.model import network
    from dermaflux.registry import ood

    model, config = network.load(folder)
    training, validation = (
        ood.views(model, config, _pixels(split, int(config["image_size"])))
        for split in ("train", "validation")
    )
    return ood.fit(training, validation, params.promote.in_distribution_quantile)


def _pixels(split: str, side: int) -> np.ndarray[Any, Any]:
    import numpy as np

    from dermaflux.classifiers.data import samples

    rows = table.metadata(paths.CORPUS, ["image_id", "label", "sha256"], split)
    rows = rows[rows["label"].isin(CLASSES)]
    chosen = rows.sort_values(["sha256", "image_id"])["image_id"].head(_IMAGES)
    return np.asarray(samples.load(paths.CORPUS, rows, list(chosen), split, side).pixels)


def _config(folder: Path) -> dict[str, Any]:
    from dermaflux.classifiers.model import network

    return network.read_config(folder)
