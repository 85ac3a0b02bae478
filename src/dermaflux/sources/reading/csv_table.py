"""A team's own images with a CSV file, whose columns the parameter `ingest.own.columns` names.

Reads the CSV file and lists the folder at any depth. The image column holds file names, with or
without suffix, or paths where names repeat; `names` says which spellings match.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from dermaflux.core import vocabulary
from dermaflux.params import OwnColumns, OwnDataset
from dermaflux.sources.adapter import Facts, Problem, Record, Source, Split
from dermaflux.sources.folder import labels_of, own_source, split_of
from dermaflux.sources.reading.files import ImageFile, join, walk_images
from dermaflux.sources.reading.names import without_suffix
from dermaflux.sources.reading.tables import Row, bad_value, licence_of, read_csv

_ARCHIVE_ID = re.compile(r"I[PL]_\d{7}")  # shared between datasets, so never prefixed
_SPLITS: dict[str, Split] = {"train": "train", "training": "train", "test": "test"}


def _unique_id(name: str, value: str) -> str | None:
    """An id that is unique across datasets."""
    if not value or _ARCHIVE_ID.fullmatch(value):
        return value or None
    return f"{name}:{value}"


def _facts(row: Row, own: OwnDataset, columns: OwnColumns, words: Mapping[str, str]) -> Facts:
    def value(column: str | None) -> str:
        return row.values[column] if column else ""

    text = value(columns.label)
    label, problem = words.get(text.lower()), None
    if not text:
        problem = Problem("no-label", f"{row.location} has no {columns.label}; fill it in")
    elif label is None:
        problem = bad_value(row, columns.label, "map it in ingest.own labels")
    tone = vocabulary.fitzpatrick(value(columns.skin_tone))
    if columns.skin_tone and value(columns.skin_tone) and tone is None:
        problem = problem or bad_value(row, columns.skin_tone, "it must be I to VI or 1 to 6")
    licence, unknown = licence_of(row, columns.licence) if columns.licence else (None, None)
    problem = problem or unknown
    if columns.split and value(columns.split) and value(columns.split).lower() not in _SPLITS:
        problem = problem or bad_value(row, columns.split, "it must be train or test")
    return Facts(
        label=label,
        diagnosis=vocabulary.diagnosis(value(columns.diagnosis)),
        patient_id=_unique_id(own.name, value(columns.patient_id)),
        lesion_id=_unique_id(own.name, value(columns.lesion_id)),
        skin_tone=tone,
        licence=licence,
        problem=problem,
    )


def source(own: OwnDataset) -> Source:
    """The adapter of one entry of `ingest.own` with a CSV file."""
    columns, table, words = own.columns, own.csv, labels_of(own)
    assert columns is not None  # `OwnDataset` requires both or neither
    assert table is not None

    def read(root: Path) -> Iterator[Record]:
        names = [getattr(columns, name) for name in type(columns).model_fields]
        rows = read_csv(root / table, filter(None, names))
        by_location = {row.location: row for row in rows}
        images = (
            ImageFile(without_suffix(path.relative_to(root).as_posix()), path)
            for path in walk_images(root)
        )
        records = join(
            images, rows, columns.image, lambda row: _facts(row, own, columns, words), own.split, ""
        )
        for record in records:
            folders = record.path.relative_to(root).parts[:-1] if record.path else ()
            split = split_of(folders, own.split)
            row = by_location.get(record.row or "")
            if columns.split and row:
                split = _SPLITS.get(row.values[columns.split].lower(), split)
            yield replace(record, split=split)

    return own_source(own, read)
