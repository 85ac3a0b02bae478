"""Folder listings and CSV files, and the join of the two. Never opens an image."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dermaflux.core import vocabulary
from dermaflux.errors import InputError
from dermaflux.sources.adapter import Facts, Problem, Record, Split

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"))
"""Lower-case suffixes that make a file an image to be accounted for."""

BOOLEANS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
"""Lower-case spellings of a truth value: integers, floats, Python's and a spreadsheet's words."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a CSV file, values stripped."""

    location: str
    values: dict[str, str]


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image that exists: a file, or a member of an HDF5 file."""

    name: str
    path: Path
    member: str | None = None


def read_csv(path: Path, needed: Iterable[str], optional: Iterable[str] = ()) -> list[Row]:
    """Rows of a CSV file, with the named columns only: half a million rows must fit in memory.

    Text is UTF-8 with or without byte order mark, or Western European as spreadsheets on Windows
    write it. An optional column that is absent reads as empty. Raises `InputError` when the file
    is absent, is not text or lacks a needed column.
    """
    needed = list(needed)
    columns = [*needed, *optional]
    try:
        try:
            return _rows(path, "utf-8-sig", needed, columns)
        except UnicodeDecodeError:
            if b"\0" in path.read_bytes():  # text in no encoding of one byte per character
                raise
            return _rows(path, "cp1252", needed, columns)
    except FileNotFoundError:
        raise InputError(f"{path} is missing; download it into that folder") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not UTF-8 CSV text ({error}); download it again") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check it") from None


def _rows(path: Path, encoding: str, needed: list[str], columns: list[str]) -> list[Row]:
    with path.open(encoding=encoding, newline="") as file:
        lines = csv.reader(file)
        header = [name.strip() for name in next(lines, [])]
        missing = [name for name in needed if name not in header]
        if missing:
            raise InputError(
                f"{path} lacks the column {missing[0]!r}, its columns are "
                f"{', '.join(header) or 'none'}; download the file again or rename its column"
            )
        indices = {name: header.index(name) if name in header else -1 for name in columns}
        return [
            Row(
                f"{path.name}:{lines.line_num}",
                {
                    # Values repeat, so one copy of each is kept.
                    name: sys.intern(line[index].strip()) if 0 <= index < len(line) else ""
                    for name, index in indices.items()
                },
            )
            for line in lines
            if line
        ]


def walk_images(folder: Path) -> Iterator[Path]:
    """Image files at any depth, in a fixed order."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield Path(parent, name)


def image_files(folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted by name; none when the folder is absent."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        # A broken link is not a folder and stays in: decoding reports it.
        return sorted(
            Path(entry.path)
            for entry in entries
            if os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and not entry.is_dir()
        )


def by_stem(paths: Iterable[Path]) -> Iterator[ImageFile]:
    """Image files under their stems."""
    return (ImageFile(path.stem, path) for path in paths)


def without_suffix(name: str) -> str:
    """An image's name as CSV files give it, with or without its suffix."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def join(
    images: Iterable[ImageFile],
    rows: Iterable[Row],
    column: str,
    interpret: Callable[[Row], Facts],
    split: Split,
    suffix: str = ".jpg",
) -> Iterator[Record]:
    """Match images to CSV rows by name = `column`; every image and every row is yielded once.

    A row that repeats an id is reported; when the repeats disagree, the image is reported too. A
    row without an image keeps its facts, so that a CSV alone can be counted.
    """
    by_id: dict[str, list[Row]] = {}
    for row in rows:
        by_id.setdefault(without_suffix(row.values[column]), []).append(row)
    seen: set[str] = set()
    for image in images:
        matches = by_id.get(image.name, [])
        if not matches:
            reason = "no row of the CSV names this image; add the row or remove the image"
            facts = Facts(problem=Problem("no-row", reason))
            yield Record(image.name, image.path, None, split, facts, image.member)
            continue
        first = matches[0]
        facts = interpret(first)
        if any(interpret(other) != facts for other in matches[1:]):
            locations = " and ".join(match.location for match in matches)
            reason = f"{locations} disagree about this image; keep the right row"
            facts = replace(facts, problem=Problem("contradiction", reason))
        yield Record(image.name, image.path, first.location, split, facts, image.member)
        seen.add(image.name)
    for name, matches in by_id.items():
        for row in matches[1:] if name in seen else matches:
            if row is matches[0]:
                missing = Problem("no-image", f"there is no image file {name}{suffix}; download it")
                facts = replace(interpret(row), problem=missing)
            else:
                reason = f"{name} is already in {matches[0].location}; remove one of the rows"
                facts = Facts(problem=Problem("repeated-row", reason))
            yield Record(name, None, row.location, split, facts)


def bad_value(row: Row, column: str, limit: str) -> Problem:
    """A value that is not in the published vocabulary; `limit` says which values are."""
    return Problem("bad-value", f"{row.location} has {column} = {row.values[column]!r}; {limit}")


def licence_of(row: Row, column: str) -> tuple[str | None, Problem | None]:
    """The licence a row publishes for its image; a `Problem` when it is unknown."""
    licence = vocabulary.licence(row.values[column])
    if licence is None and row.values[column]:
        known = ", ".join(vocabulary.LICENCES)
        return None, bad_value(row, column, f"it must be one of {known}")
    return licence, None


def one_hot(row: Row, classes: Iterable[str]) -> str | Problem:
    """The class whose column is 1 (``1``, ``1.0``); a `Problem` unless exactly one is."""
    chosen = []
    for name in classes:
        flag = BOOLEANS.get(row.values[name].lower())
        if flag is None:
            return bad_value(row, name, "it must be 0 or 1")
        if flag:
            chosen.append(name)
    if len(chosen) != 1:
        marked = ", ".join(chosen) or "none"
        return Problem("bad-value", f"{row.location} marks {marked}; exactly one class must be 1")
    return chosen[0]


def class_folders(root: Path, labels: Mapping[str, str], split: Split) -> Iterator[Record]:
    """Images of folders below `root` by label; ids are paths below it, since stems repeat."""
    for folder, label in labels.items():
        for path in image_files(root / folder):
            original = path.relative_to(root).with_suffix("").as_posix()
            yield Record(original, path, None, split, Facts(label=label))
