"""ISIC 2020 challenge (SIIM-ISIC): its test labels are hidden, so only the training part is read.

Reads ``train/*.jpg``, ``ISIC_2020_Training_GroundTruth_v2.csv`` (with lesion ids) or the older
``ISIC_2020_Training_GroundTruth.csv``, and ``ISIC_2020_Training_Duplicates.csv``; of Kaggle's copy
``jpeg/train/*.jpg`` and ``train.csv``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dermaflux.core import vocabulary
from dermaflux.core.file_names import row_name
from dermaflux.sources.adapter import Counts, Facts, OpenFiles, Problem, Record, Source
from dermaflux.sources.reading.files import by_stem, join
from dermaflux.sources.reading.folders import nested_image_files
from dermaflux.sources.reading.tables import (
    OptionalValues,
    Row,
    bad_value,
    read_csv,
    stated,
    truth_value,
)

_TRUTH = "ISIC_2020_Training_GroundTruth.csv"
_TRUTH_V2 = "ISIC_2020_Training_GroundTruth_v2.csv"
_ZIP = "ISIC_2020_Training_JPEG"  # "Extract all" of Windows keeps the zip file's name
_KAGGLE, _KAGGLE_IMAGES = "train.csv", "jpeg/train"  # siim-isic-melanoma-classification
_DUPLICATES = "ISIC_2020_Training_Duplicates.csv"


def _facts(row: Row) -> Facts:
    target = row.values["target"]
    flag = truth_value(target)
    if flag is None:
        return Facts(problem=bad_value(row, "target", "it must be 0 or 1"))
    label = "malignant" if flag else "benign"
    word = stated(row, "benign_malignant").lower() or label
    if word != label:
        reason = f"{row.location} has target = {target} but benign_malignant = {word}; correct it"
        return Facts(problem=Problem("contradiction", reason))
    optional = OptionalValues()
    return Facts(
        label=label,
        # "unknown" is benign without a subtype (Rotemberg et al. 2021), and no diagnosis.
        diagnosis=vocabulary.diagnosis(row.values["diagnosis"]),
        patient_id=optional.read(row, "patient_id", vocabulary.identifier),
        lesion_id=optional.read(row, "lesion_id", vocabulary.identifier),
        unread=tuple(optional.unread),
    )


def read(root: Path) -> Iterator[Record]:
    """Records of the training part, from the newer ground truth where both are there."""
    names = (_TRUTH_V2, _TRUTH, _KAGGLE)
    truth = next((root / name for name in names if (root / name).is_file()), root / _TRUTH)
    optional = ("lesion_id", "benign_malignant", "diagnosis")
    rows = read_csv(truth, ("image_name", "patient_id", "target"), optional)
    folders = ("train", _ZIP, _KAGGLE_IMAGES)
    images = next(filter(None, (nested_image_files(root / name) for name in folders)), [])
    yield from join(by_stem(images), rows, "image_name", _facts, "train")


def pairs(root: Path) -> list[tuple[str, str]]:
    """The published list of duplicate images; empty when it was not downloaded."""
    path = root / _DUPLICATES
    if not path.is_file():
        return []
    rows = read_csv(path, ("image_name_1", "image_name_2"))
    names = ("image_name_1", "image_name_2")
    return [(row_name(row.values[names[0]]), row_name(row.values[names[1]])) for row in rows]


SOURCE = Source(
    name="isic2020",
    title="ISIC 2020 (SIIM-ISIC)",
    licence="CC-BY-NC",
    modality="dermoscopic",
    citation="Rotemberg et al. 2021 (10.1038/s41597-021-00815-z)",
    url="https://challenge.isic-archive.com/data/#2020",
    published_scale=512,
    markers=(_TRUTH, _TRUTH_V2, _KAGGLE_IMAGES),
    claims=("train", _ZIP, "jpeg", _TRUTH, _TRUTH_V2, _KAGGLE, _DUPLICATES),
    read=read,
    pairs=pairs,
    counts={"train": Counts(33_126, 32_542, 584)},
    mapping="target, which is melanoma or not (Rotemberg et al. 2021); unknown is benign",
    bytes=23_000_000_000,
    download=OpenFiles(
        "https://isic-archive.s3.amazonaws.com/challenges/2020",
        (_TRUTH_V2, _DUPLICATES, "ISIC_2020_Training_JPEG.zip"),
    ),
)
