"""The columns of the ISIC archive, in both generations, as isic-cli and the DOI bundles write them.

Until 2026 a row said ``benign_malignant`` and ``diagnosis``; since then the archive serves
``diagnosis_1`` (Benign, Malignant, Indeterminate) to ``diagnosis_5`` only
(https://api.isic-archive.com). Files from the transition have both, and the new taxonomy decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dermaflux.core import vocabulary
from dermaflux.core.vocabulary import LABELS
from dermaflux.sources.adapter import Facts, Problem, Record
from dermaflux.sources.reading.delimited import has_columns
from dermaflux.sources.reading.files import by_stem, image_files, join
from dermaflux.sources.reading.folders import nested_image_files
from dermaflux.sources.reading.tables import (
    OptionalValues,
    Row,
    bad_value,
    licence_of,
    read_csv,
    stated,
)

METADATA = "metadata.csv"
_DIAGNOSES = ("diagnosis", "diagnosis_5", "diagnosis_4", "diagnosis_3", "diagnosis_2")
COLUMNS = (
    *("copyright_license", "benign_malignant", "diagnosis", "diagnosis_1", *_DIAGNOSES[1:]),
    *("fitzpatrick_skin_type", "image_type", "lesion_id", "patient_id"),
)
"""Columns that are read; all but `isic_id` may be absent."""

OLD_DIAGNOSES = {
    "nevus": "benign",
    "seborrheic keratosis": "benign",
    "solar lentigo": "benign",
    "lichenoid keratosis": "benign",
    "dermatofibroma": "benign",
    "vascular lesion": "benign",
    "pigmented benign keratosis": "benign",
    "basal cell carcinoma": "malignant",
    "melanoma": "malignant",
    "squamous cell carcinoma": "malignant",
    "actinic keratosis": "indeterminate",
    "atypical melanocytic proliferation": "indeterminate",
    "aimp": "indeterminate",
}
"""`diagnosis` of the old columns -> what the new taxonomy calls it. It takes precedence over
the old `benign_malignant`, which calls actinic keratosis benign and is empty for many
carcinomas."""

_OLD_LABELS = {
    "benign": "benign",
    "malignant": "malignant",
    "indeterminate": "indeterminate",
    "indeterminate/benign": "indeterminate",
    "indeterminate/malignant": "indeterminate",
}


def label(row: Row) -> str | Problem:
    """benign, malignant or indeterminate; a `Problem` when the row says nothing."""
    newer = stated(row, "diagnosis_1")
    if newer:
        known = newer.lower()
        if known in LABELS:
            return known
        return bad_value(row, "diagnosis_1", "it must be Benign, Malignant or Indeterminate")
    older = OLD_DIAGNOSES.get(row.values["diagnosis"].lower())
    older = older or _OLD_LABELS.get(row.values["benign_malignant"].lower())
    if older is None:
        reason = f"{row.location} has neither diagnosis_1 nor a known diagnosis; remove the image"
        return Problem("no-label", reason)
    return older


def facts(row: Row) -> Facts:
    """What a row of the archive says about its image."""
    values = row.values
    verdict = label(row)
    problem = verdict if isinstance(verdict, Problem) else None
    optional = OptionalValues()
    licence, unknown = licence_of(row, "copyright_license", optional)
    diagnosis = next((values[name] for name in _DIAGNOSES if stated(row, name)), "")
    return Facts(
        label=None if isinstance(verdict, Problem) else verdict,
        diagnosis=vocabulary.diagnosis(diagnosis),
        patient_id=optional.read(row, "patient_id", vocabulary.identifier),
        lesion_id=optional.read(row, "lesion_id", vocabulary.identifier),
        skin_tone=optional.read(row, "fitzpatrick_skin_type", vocabulary.fitzpatrick),
        modality=optional.read(row, "image_type", vocabulary.modality),
        licence=licence,
        problem=problem or unknown,
        unread=tuple(optional.unread),
    )


def is_layout(root: Path) -> bool:
    """Whether a folder holds a ``metadata.csv`` of the archive, by isic-cli or a DOI bundle."""
    path = root / METADATA
    return path.is_file() and has_columns(path, ("isic_id",))


def read(root: Path, names: Sequence[str] = (METADATA,)) -> Iterator[Record]:
    """Records of ``*.jpg`` or ``images/*.jpg`` and the first of the CSV files that exists."""
    table = next((root / name for name in names if (root / name).is_file()), root / names[0])
    rows = read_csv(table, ("isic_id",), COLUMNS)
    images = image_files(root) + nested_image_files(root / "images")
    yield from join(by_stem(images), rows, "isic_id", facts, "train")
