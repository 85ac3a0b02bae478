"""MILK10k: each lesion photographed twice, with and without a dermoscope.

Reads ``MILK10k_Training_Input/<lesion>/<image>.jpg`` (nested once more by some unpackers),
``MILK10k_Training_{GroundTruth,Metadata,Supplement}.csv``. The ground truth has one row per lesion,
the other two one per image. The test part's labels are hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dermaflux.core import vocabulary
from dermaflux.core.file_names import image_key
from dermaflux.sources.adapter import Counts, Facts, OpenFiles, Problem, Record, Source
from dermaflux.sources.reading.files import by_stem, join, walk_images
from dermaflux.sources.reading.tables import (
    OptionalValues,
    Row,
    licence_of,
    one_hot,
    read_csv,
)

CLASSES = {
    "AKIEC": "indeterminate",
    "BCC": "malignant",
    "BEN_OTH": "benign",
    "BKL": "benign",
    "DF": "benign",
    "INF": "benign",
    "MAL_OTH": "malignant",
    "MEL": "malignant",
    "NV": "benign",
    "SCCKA": "malignant",
    "VASC": "benign",
}
"""Class of a lesion -> label. SCCKA holds keratoacanthoma, malignant in the archive's taxonomy."""

IN_SITU = "squamous cell carcinoma in situ"
"""AKIEC is two diagnoses: this, malignant, and actinic keratosis; `diagnosis_full` says which."""

_PART = "MILK10k_Training"
_ABOUT = ("isic_id", "lesion_id", "image_type", "skin_tone_class")


def _facts(row: Row, classes: dict[str, str | Problem], details: dict[str, str]) -> Facts:
    values = row.values
    lesion = values["lesion_id"]
    chosen = classes.get(lesion)
    if chosen is None:
        reason = f"{row.location} names lesion {lesion}, which the ground truth lacks; add its row"
        return Facts(problem=Problem("no-label", reason))
    if isinstance(chosen, Problem):
        return Facts(problem=chosen)
    full = vocabulary.diagnosis(details.get(image_key(values["isic_id"]), ""))
    label = CLASSES[chosen]
    if chosen == "AKIEC" and full == IN_SITU:
        label = "malignant"
    optional = OptionalValues()
    licence, problem = licence_of(row, "copyright_license", optional)
    return Facts(
        label=label,
        diagnosis=full or chosen.lower(),
        lesion_id=lesion or None,
        skin_tone=optional.read(row, "skin_tone_class", vocabulary.darkness_class),
        modality=optional.read(row, "image_type", vocabulary.modality),
        licence=licence,
        problem=problem,
        unread=tuple(optional.unread),
    )


def read(root: Path) -> Iterator[Record]:
    """Records of the training part; without the supplement AKIEC stays indeterminate."""
    truth = read_csv(root / f"{_PART}_GroundTruth.csv", ("lesion_id", *CLASSES))
    classes = {row.values["lesion_id"]: one_hot(row, CLASSES) for row in truth}
    about = read_csv(root / f"{_PART}_Metadata.csv", _ABOUT, ("copyright_license",))
    supplement = root / f"{_PART}_Supplement.csv"
    details = {}
    if supplement.is_file():
        rows = read_csv(supplement, ("isic_id", "diagnosis_full"))
        details = {image_key(row.values["isic_id"]): row.values["diagnosis_full"] for row in rows}
    images = by_stem(walk_images(root / f"{_PART}_Input"))
    yield from join(images, about, "isic_id", lambda row: _facts(row, classes, details), "train")


SOURCE = Source(
    name="milk10k",
    title="MILK10k",
    licence="CC-BY-NC",
    modality="dermoscopic",
    citation="Tschandl et al. 2025 (10.1016/j.jid.2025.06.1594)",
    url="https://challenge.isic-archive.com/data/#milk10k",
    published_scale=512,
    markers=(f"{_PART}_GroundTruth.csv", f"{_PART}_Input"),
    claims=(
        *(f"{_PART}_Input", f"{_PART}_GroundTruth.csv"),
        *(f"{_PART}_Metadata.csv", f"{_PART}_Supplement.csv"),
    ),
    read=read,
    # 6,908 images of the malignant classes and 360 of AKIEC that are carcinoma in situ.
    counts={"train": Counts(10_480, 2_966, 7_268, 246)},
    mapping="class of the lesion; AKIEC by diagnosis_full (ISIC archive taxonomy)",
    bytes=314_000_000,
    download=OpenFiles(
        "https://isic-archive.s3.amazonaws.com/challenges/milk10k",
        tuple(
            f"{_PART}_{file}"
            for file in ("GroundTruth.csv", "Metadata.csv", "Supplement.csv", "Input.zip")
        ),
    ),
)
