"""DERM12345: dermoscopic images in folders by diagnosis code, with a published test part.

Reads ``derm12345_{train_part_1,train_part_2,test}/<code>/<image>.jpg`` with
``derm12345_metadata_{train,test}.csv`` (Dataverse), or the ISIC archive's copy, which has no split.
Patients PID_910308, PID_491274 and PID_970532 are in train and test, as the authors intended:
the leak guard removes their training images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dermaflux.core import vocabulary
from dermaflux.sources.adapter import SPLITS, Counts, Facts, Problem, Record, Source
from dermaflux.sources.reading import archive
from dermaflux.sources.reading.files import by_stem, join, walk_images
from dermaflux.sources.reading.tables import OptionalValues, Row, bad_value, licence_of, read_csv

CODES = {
    "benign": "acb cb ccb mcb bdb db ajb cjb jb acd cd ccd ajd jd srjd rd isl ls sl sk lk df ha la "
    "pg angk sa",
    "indeterminate": "ak",
    "malignant": "alm anm lm lmm mel bcc bd ch mpd scc dfsp ks",
}
"""Malignancy -> diagnosis codes (Yilmaz et al. 2024, table of the repository). The authors file
cutaneous horn (ch) under malignant; actinic keratosis they call indeterminate."""

_LABELS = {code: label for label, codes in CODES.items() for code in codes.split()}
_PARTS = {"train": ("train_part_1", "train_part_2"), "test": ("test",)}
_COLUMNS = ("image_id", "patient_id", "copyright-license", "split", "malignancy", "label")
_ABOUT = ("super_class", "main_class_1", "sub_class")


def _diagnosis(row: Row) -> str | None:
    """The sub class; nevus and melanoma where the sub class only names a kind of these."""
    kind = row.values["main_class_1"]
    if kind in ("banal", "dysplastic"):
        return "nevus"
    return "melanoma" if kind == "melanoma" else vocabulary.diagnosis(row.values["sub_class"])


def _problem(row: Row, split: str) -> Problem | None:
    code, malignancy = row.values["label"], row.values["malignancy"]
    if code not in _LABELS:
        return bad_value(row, "label", "it must be one of the 40 codes of DERM12345")
    if malignancy != _LABELS[code]:
        reason = f"{row.location} has label {code} but malignancy {malignancy}; correct it"
        return Problem("contradiction", reason)
    if vocabulary.part(row.values["split"]) != split:
        return Problem("contradiction", f"{row.location} is not in the part {split}; move the row")
    return None


def _facts(row: Row, split: str) -> Facts:
    optional = OptionalValues()
    patient = optional.read(row, "patient_id", vocabulary.identifier)
    licence, unknown = licence_of(row, "copyright-license", optional)
    return Facts(
        label=_LABELS.get(row.values["label"]),
        diagnosis=_diagnosis(row),
        patient_id=f"derm12345:{patient}" if patient else None,
        licence=licence,
        problem=_problem(row, split) or unknown,
        unread=tuple(optional.unread),
    )


def read(root: Path) -> Iterator[Record]:
    """Records of both parts; a part that was not downloaded is left out."""
    if archive.is_layout(root):
        yield from archive.read(root)
        return
    for split in SPLITS:
        table = root / f"derm12345_metadata_{split}.csv"
        folders = [root / f"derm12345_{part}" for part in _PARTS[split]]
        if not table.is_file() and not any(folder.is_dir() for folder in folders):
            continue
        rows = read_csv(table, _COLUMNS, _ABOUT)
        codes = {row.location: row.values["label"] for row in rows}
        images = [path for folder in folders for path in walk_images(folder)]
        records = join(
            by_stem(images),
            rows,
            "image_id",
            lambda row, split=split: _facts(row, split),  # type: ignore[misc]
            split,
        )
        yield from (_checked_against_folder(record, codes) for record in records)


def _checked_against_folder(record: Record, codes: dict[str, str]) -> Record:
    """The record, with a problem when its folder and its row name different diagnoses."""
    code = codes.get(record.row or "")
    if record.path is None or code is None or record.facts.problem:
        return record
    folder = record.path.parent.name
    if folder not in _LABELS or folder == code:
        return record
    reason = f"its folder says {folder} but {record.row} says {code}; keep the right one"
    return replace(record, facts=replace(record.facts, problem=Problem("contradiction", reason)))


SOURCE = Source(
    name="derm12345",
    title="DERM12345",
    licence="CC-BY",
    modality="dermoscopic",
    citation="Yilmaz et al. 2024 (10.1038/s41597-024-04104-3)",
    url="https://doi.org/10.7910/DVN/DAXZ7P",
    published_scale=512,
    markers=("derm12345_metadata_train.csv", "derm12345_metadata_test.csv"),
    shared_markers=(archive.METADATA,),
    claims=(
        *("derm12345_metadata_train.csv", "derm12345_metadata_test.csv"),
        *("derm12345_train_part_1", "derm12345_train_part_2", "derm12345_test"),
    ),
    read=read,
    counts={
        "train": Counts(9_860, None, None, 47),
        "test": Counts(2_485, 2_235, 239, 11),
    },
    mapping="malignancy, checked against the code in label (Yilmaz et al. 2024)",
    bytes=1_700_000_000,  # the archive's bundle; Dataverse states none in one place
    by_hand="open https://doi.org/10.7910/DVN/DAXZ7P, choose Access Dataset > Download, and unpack "
    "the three zip files and two CSV files into FOLDER/derm12345",
    test_in_paper=True,
)
