"""Candidates for promotion: trained classifiers with their predictions for the validation split.

Reads models/classifiers/ and the validation split of corpus/; writes nothing.

The arm `random_features` is not a candidate: its network is frozen at random weights, as a baseline
for what training adds, so it could only lead by chance. Neither are `shuffled`, which learned from
wrong labels, and the sizes of `train.curve`, which are points of a curve and no choice of data.
`more_real` is one, unless the training split was too small and it is the arm `real`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dermaflux import paths
from dermaflux.classifiers.data import real_draws
from dermaflux.core import table
from dermaflux.core.checkpoints import fingerprint
from dermaflux.core.files import read_csv
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.params import LEARNED, Params
from dermaflux.registry import lineage

if TYPE_CHECKING:
    import pandas as pd

    from dermaflux.registry import registry


@dataclass(frozen=True)
class Candidate:
    """A trained classifier of one cell and arm, with its validation predictions."""

    cell: str
    arm: str
    folder: Path
    predictions: pd.DataFrame
    """Indexed by image_id: `malignant` (bool) and `probability` in [0, 1]."""
    auc: float

    @property
    def name(self) -> str:
        """`vit-0/mixture`."""
        return f"{self.cell}/{self.arm}"


def predictions(folder: Path) -> pd.DataFrame:
    """Validation predictions of a classifier folder, indexed and sorted by image_id.

    Raises `InputError` when the file is missing or is not such a table.
    """
    path = folder / "validation.csv"
    stage = "`dvc repro`, or `dvc pull`"
    rows = read_csv(path, stage, ("probability",), ("image_id", "label"), index="image_id")
    rows["malignant"] = rows["label"].isin(["malignant", "1"])
    return rows[["malignant", "probability"]].sort_index()


def auc(rows: pd.DataFrame) -> float:
    """Area under the ROC curve of a prediction table."""
    from dermaflux.metrics import binary

    return binary.auc(rows["malignant"].to_numpy().astype(int), rows["probability"].to_numpy())


def learned_arms(params: Params) -> list[str]:
    """Arms that can be promoted; raises `InputError` when there is none."""
    trained = params.training(params.promote.architecture).arms
    arms = [arm for arm in trained if arm in LEARNED]
    if not arms:
        raise InputError(
            f"the list of arms {trained} of {params.promote.architecture} contains no candidate, "
            "because none of them trains features on true labels; add real or mixture"
        )
    return arms


def candidates(params: Params) -> list[Candidate]:
    """Every trained cell of `promote.architecture`, best validation AUC first, ties by name."""
    arms = learned_arms(params)
    trained = []
    for seed in params.train.seeds:
        cell = paths.cell(params.promote.architecture, seed)
        short = real_draws.read(paths.CLASSIFIERS / cell)
        for arm in [arm for arm in arms if arm not in short] or arms:
            folder = paths.CLASSIFIERS / cell / arm
            rows = predictions(folder)
            trained.append(Candidate(cell, arm, folder, rows, auc(rows)))
    return sorted(trained, key=lambda candidate: (-candidate.auc, candidate.cell, candidate.arm))


def validation_split(params: Params) -> pd.DataFrame:
    """Labelled validation images of the corpus, indexed and sorted by image_id.

    Under `train.draw` matched its pairs alone, on which the candidates' epochs were compared.
    """
    from dermaflux.classifiers.data import training_set

    rows = table.metadata(paths.CORPUS, lineage.COLUMNS, "validation")
    rows = rows[rows["label"].isin(CLASSES)]
    compared = training_set.judges(params)
    if compared is not None:
        rows = rows[rows["image_id"].isin(compared.listed)]
    return rows.assign(malignant=rows["label"] == "malignant").set_index("image_id").sort_index()


def check_images(candidate: Candidate, split: pd.DataFrame) -> None:
    """Raise `InputError` when a candidate was not scored on the validation images of corpus/."""
    if not split.index.equals(candidate.predictions.index):
        raise InputError(
            f"{candidate.folder}/validation.csv covers {len(candidate.predictions)} images but "
            f"corpus/ has {len(split)} for validation, or others; run `dvc repro` so that both "
            "agree"
        )


def split_hash(split: pd.DataFrame) -> str:
    """Fingerprint of the ids, labels and pixels of the validation images."""
    return fingerprint(
        images=split.index.to_list(),
        malignant=[bool(value) for value in split["malignant"]],
        sha256=split["sha256"].to_list(),
    )


def rescore(folder: Path, split: pd.DataFrame) -> pd.DataFrame:
    """Predictions of a classifier folder for the present validation images."""
    import pandas as pd

    from dermaflux.classifiers.data import samples
    from dermaflux.classifiers.model import network

    model, config = network.load(folder)
    rows, images = samples.load_split(
        paths.CORPUS, "validation", config["image_size"], wanted=split.index.to_list()
    )
    scores = pd.Series(network.probabilities(model, config, images.pixels), index=rows["image_id"])
    return split[["malignant"]].assign(probability=scores)


def champion_predictions(present: registry.RegisteredVersion, split: pd.DataFrame) -> pd.DataFrame:
    """The champion's predictions for the present validation images.

    Raises `InputError` when the champion cannot be loaded, since it must not lose because of that.
    """
    folder = present.load().folder
    if present.tags.get("validation_hash") != split_hash(split):
        return rescore(folder, split)
    try:
        return predictions(folder).loc[split.index]
    except (InputError, KeyError) as error:
        raise present.load_error(error) from None
