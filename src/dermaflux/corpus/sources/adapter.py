"""What an adapter is: a published dataset's facts, and how its files become records.

Reads CSV files and lists folders; never opens an image. An adapter yields one `Record` per image
file and one per CSV row that has no image, so that nothing published can get lost.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from dermaflux.errors import InputError

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"))
"""Lower-case suffixes that make a file an image to be accounted for."""

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
"""ISIC challenge class -> (label, diagnosis). AK is `diagnosis_1 = Indeterminate` in the taxonomy
of the ISIC archive (https://api.isic-archive.com)."""


BINARY = {"0": False, "0.0": False, "1": True, "1.0": True}
"""Spellings of a truth value in ground-truth files, which come with integers and with floats."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a record cannot be used: a short rule that counts, and a sentence that helps."""

    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What a dataset says about one image.

    `patient_id` and `lesion_id` are unique across datasets: ids of the ISIC archive (``IP_``,
    ``IL_``) stay as they are because datasets share them, others carry the dataset's prefix.
    """

    label: str | None = None
    diagnosis: str | None = None
    patient_id: str | None = None
    lesion_id: str | None = None
    skin_tone: str | None = None
    modality: str | None = None
    """Overrides the dataset's, where it holds more than one."""
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One image file with its facts, or one CSV row without an image."""

    original_id: str
    """Unique inside the dataset; a path without suffix where names repeat between folders."""
    path: Path | None
    row: str | None
    """``<CSV name>:<line>`` of the row, where there is one."""
    split: Literal["train", "test"]
    facts: Facts


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a CSV file, values stripped."""

    location: str
    values: dict[str, str]


@dataclass(frozen=True)
class Source:
    """A published dataset."""

    name: str
    """Prefix of image ids, and name of its folder in the data folder."""
    title: str
    licence: str
    modality: str
    citation: str
    url: str
    published_scale: int
    """The bucket in pixels that the paper puts the whole dataset in."""
    markers: tuple[str, ...]
    """Paths, any of which betrays the layout; compared case-sensitively."""
    claims: tuple[str, ...]
    """Top-level names of the layout, in case it lies open in the data folder."""
    read: Callable[[Path], Iterator[Record]] = field(repr=False)
    pairs: Callable[[Path], list[tuple[str, str]]] = field(repr=False, default=lambda root: [])
    """Published duplicates, as pairs of original ids."""


def read_csv(path: Path, needed: Iterable[str]) -> list[Row]:
    """Rows of a UTF-8 CSV file, with or without byte order mark.

    Raises `InputError` when the file is absent, is not UTF-8 text or lacks a needed column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header = [(name or "").strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            missing = [name for name in needed if name not in header]
            if missing:
                raise InputError(
                    f"{path} lacks the column {missing[0]!r}, its columns are "
                    f"{', '.join(header) or 'none'}; download the file again or rename its column"
                )
            return [
                Row(
                    f"{path.name}:{reader.line_num}",
                    {name: (line.get(name) or "").strip() for name in header},
                )
                for line in reader
            ]
    except FileNotFoundError:
        raise InputError(f"{path} is missing; download it into that folder") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not UTF-8 CSV text ({error}); download it again") from None


def image_files(folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted by name; none when the folder is absent."""
    if not folder.is_dir():
        return []
    # A broken link is no folder and stays in: decoding reports it.
    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.is_dir()
    )


def join(
    files: Iterable[Path],
    rows: Iterable[Row],
    column: str,
    interpret: Callable[[Row], Facts],
    split: Literal["train", "test"],
) -> Iterator[Record]:
    """Match image files to CSV rows by stem = `column`; every file and every row comes out once.

    A row that repeats an id is reported; when the repeats disagree, the image is reported too.
    """
    by_id: dict[str, list[Row]] = {}
    for row in rows:
        by_id.setdefault(row.values[column], []).append(row)
    seen: set[str] = set()
    for path in files:
        name = path.stem
        matches = by_id.get(name, [])
        if not matches:
            reason = "no row of the CSV names this image; add the row or remove the image"
            yield Record(name, path, None, split, Facts(problem=Problem("no-row", reason)))
            continue
        first = matches[0]
        facts = interpret(first)
        if any(interpret(other) != facts for other in matches[1:]):
            places = " and ".join(match.location for match in matches)
            reason = f"{places} disagree about this image; keep the right row"
            facts = replace(facts, problem=Problem("contradiction", reason))
        yield Record(name, path, first.location, split, facts)
        seen.add(name)
    for name, matches in by_id.items():
        for row in matches[1:] if name in seen else matches:
            if row is matches[0]:
                problem = Problem("no-image", f"there is no image file {name}.jpg; download it")
            else:
                reason = f"{name} already stands in {matches[0].location}; remove one of the rows"
                problem = Problem("repeated-row", reason)
            yield Record(name, None, row.location, split, Facts(problem=problem))


def one_hot(row: Row, classes: Iterable[str]) -> str | Problem:
    """The class whose column is 1 (``1``, ``1.0``); a `Problem` unless exactly one is."""
    chosen = []
    for name in classes:
        flag = BINARY.get(row.values[name])
        if flag is None:
            reason = f"{row.location} has {name} = {row.values[name]!r}; it must be 0 or 1"
            return Problem("bad-value", reason)
        if flag:
            chosen.append(name)
    if len(chosen) != 1:
        found = ", ".join(chosen) or "none"
        return Problem("bad-value", f"{row.location} marks {found}; exactly one class must be 1")
    return chosen[0]


def class_folders(
    root: Path, folders: Iterable[tuple[str, Literal["train", "test"], str]]
) -> Iterator[Record]:
    """Images of (folder, split, label) triples; ids are paths below `root`, since stems repeat."""
    for folder, split, label in folders:
        for path in image_files(root / folder):
            original = path.relative_to(root).with_suffix("").as_posix()
            yield Record(original, path, None, split, Facts(label=label))
