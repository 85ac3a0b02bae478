"""CSV files as rows, and the values that stand in them. Never opens an image."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dermaflux.core import vocabulary
from dermaflux.errors import InputError
from dermaflux.sources.adapter import Problem

BOOLEANS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
"""Lower-case spellings of a truth value: integers, floats, Python's and a spreadsheet's words."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a CSV file, values stripped."""

    location: str
    values: dict[str, str]


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
