"""ISIC 2019 challenge: HAM10000, BCN20000 and MSK, with its published test split.

Reads ``ISIC_2019_{Training,Test}_Input/*.jpg``, ``ISIC_2019_{Training,Test}_GroundTruth.csv`` and
``ISIC_2019_Training_Metadata.csv`` (lesion ids) as downloaded from the page below.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dermaflux.core import vocabulary
from dermaflux.core.file_names import image_key
from dermaflux.sources.adapter import Counts, Facts, OpenFiles, Problem, Record, Source
from dermaflux.sources.reading.files import by_stem, join
from dermaflux.sources.reading.folders import nested_image_files
from dermaflux.sources.reading.tables import OptionalValues, Row, one_hot, read_csv

ISIC_CLASSES = {
    "MEL": ("malignant", "melanoma"),
    "NV": ("benign", "nevus"),
    "BCC": ("malignant", "basal cell carcinoma"),
    "AK": ("indeterminate", "actinic keratosis"),
    "BKL": ("benign", "benign keratosis"),
    "DF": ("benign", "dermatofibroma"),
    "VASC": ("benign", "vascular lesion"),
    "SCC": ("malignant", "squamous cell carcinoma"),
}
"""Class -> (label, diagnosis). AK is `diagnosis_1 = Indeterminate` in the taxonomy of the ISIC
archive (https://api.isic-archive.com)."""

_CLASSES = (*ISIC_CLASSES, "UNK")
_UNKNOWN = Problem("no-meaning", "class UNK is neither benign nor malignant")


def _facts(row: Row, about: dict[str, Row]) -> Facts:
    chosen = one_hot(row, _CLASSES)
    if isinstance(chosen, Problem):
        return Facts(problem=chosen)
    if chosen == "UNK":
        return Facts(problem=_UNKNOWN)
    label, diagnosis = ISIC_CLASSES[chosen]
    described = about.get(image_key(row.values["image"]))
    if described is None:
        return Facts(label=label, diagnosis=diagnosis)
    optional = OptionalValues()
    lesion = optional.read(described, "lesion_id", vocabulary.identifier)
    unread = tuple(optional.unread)
    return Facts(label=label, diagnosis=diagnosis, lesion_id=lesion, unread=unread)


def read(root: Path) -> Iterator[Record]:
    """Records of the training and the test part; a part that was not downloaded is left out."""
    for part in ("Training", "Test"):
        folder = root / f"ISIC_2019_{part}_Input"
        truth = root / f"ISIC_2019_{part}_GroundTruth.csv"
        if not folder.is_dir() and not truth.is_file():
            continue
        rows = read_csv(truth, ("image", *_CLASSES))
        about: dict[str, Row] = {}
        if part == "Training":
            # The test part publishes no lesion ids. Here they are needed: without them, images of
            # one lesion would fall on both sides of the validation split.
            lesions = read_csv(root / "ISIC_2019_Training_Metadata.csv", ("image", "lesion_id"))
            about = {image_key(row.values["image"]): row for row in lesions}
        yield from join(
            by_stem(nested_image_files(folder)),
            rows,
            "image",
            lambda row, about=about: _facts(row, about),  # type: ignore[misc]
            "train" if part == "Training" else "test",
        )


SOURCE = Source(
    name="isic2019",
    title="ISIC 2019",
    licence="CC-BY-NC",
    modality="dermoscopic",
    citation="Tschandl et al. 2018 (10.1038/sdata.2018.161); Codella et al. 2018 "
    "(10.1109/ISBI.2018.8363547); Hernández-Pérez et al. 2024 (10.1038/s41597-024-03387-w)",
    url="https://challenge.isic-archive.com/data/#2019",
    published_scale=512,
    markers=("ISIC_2019_Training_Input", "ISIC_2019_Test_Input"),
    claims=(
        "ISIC_2019_Training_Input",
        "ISIC_2019_Test_Input",
        "ISIC_2019_Training_GroundTruth.csv",
        "ISIC_2019_Training_Metadata.csv",
        "ISIC_2019_Test_GroundTruth.csv",
        "ISIC_2019_Test_Metadata.csv",
    ),
    read=read,
    counts={
        "train": Counts(25_331, 15_991, 8_473, 867),
        "test": Counts(8_238, 3_350, 2_467, 374, meaningless=2_047),
    },
    mapping="class: MEL, BCC, SCC malignant, AK indeterminate (ISIC archive taxonomy), UNK nothing",
    bytes=12_700_000_000,
    download=OpenFiles(
        "https://isic-archive.s3.amazonaws.com/challenges/2019",
        tuple(
            f"ISIC_2019_{part}_{file}"
            for part in ("Training", "Test")
            for file in ("GroundTruth.csv", "Metadata.csv", "Input.zip")
        ),
    ),
)
