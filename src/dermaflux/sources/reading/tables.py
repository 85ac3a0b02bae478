"""CSV files as rows, and the values that stand in them. Never opens an image."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

from dermaflux.core import vocabulary
from dermaflux.errors import InputError, one_line, quoted
from dermaflux.params.label_words import label_word
from dermaflux.sources.adapter import Problem
from dermaflux.sources.reading import delimited

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a CSV file, values stripped."""

    location: str
    values: dict[str, str]


def read_csv(path: Path, needed: Iterable[str], optional: Iterable[str] = ()) -> list[Row]:
    """Rows of a CSV file, with the named columns only: half a million rows must fit in memory.

    `delimited` says which encodings and separators are read. An optional column that is absent
    reads as empty, and so do cells that a short row lacks; rows without any value are passed over.
    Raises `InputError` when the file is absent, is no such text, lacks a needed column or has a row
    with more values than columns, since its values may stand in the wrong ones.
    """
    needed, optional = list(needed), list(optional)
    with delimited.one_sentence(path):
        first, *other = delimited.encodings(path)
        try:
            return _rows(path, delimited.layout(path, first, needed, optional), needed + optional)
        except UnicodeDecodeError:
            if not other:
                raise
            layout = delimited.layout(path, other[0], needed, optional)
            return _rows(path, layout, needed + optional)


def _rows(path: Path, layout: delimited.Layout, columns: list[str]) -> list[Row]:
    width, name, rows = len(layout.header), path.name, list[Row]()
    places = {column: layout.index(column) for column in columns}
    indices = {column: width if place is None else place for column, place in places.items()}
    with path.open(encoding=layout.encoding, newline="") as file:
        lines = delimited.reader(file, layout.separator)
        try:
            for line in islice(lines, layout.skipped, None):
                if not any(line):
                    continue
                if len(line) != width:
                    if any(line[width:]):
                        r_export = " (in R: row.names = FALSE)" if len(line) == width + 1 else ""
                        raise InputError(
                            f"{one_line(path)} has {len(line)} values and {width} columns "
                            f"in line {lines.line_num}; name every column in the header{r_export} "
                            "and put quotation marks round a value that holds "
                            f"{layout.separator!r}"
                        )
                    line = line[:width] + [""] * (width - len(line))
                line.append("")  # the value of an absent column
                # Values repeat, so one copy of each is kept.
                values = {column: sys.intern(line[i].strip()) for column, i in indices.items()}
                rows.append(Row(f"{name}:{lines.line_num}", values))
        except csv.Error as error:
            before = rows[-1].location if rows else f"the header of {name}"
            raise csv.Error(f"after {before}: {error}") from None
    return rows


@dataclass(slots=True)
class OptionalValues:
    """The values of an image that it can do without: what nobody can read becomes None.

    A mark of a missing value or an unknown word must not cost the image; `unread` keeps them, so
    that they are counted.
    """

    unread: list[tuple[str, str]] = field(default_factory=list)

    def read(self, row: Row, column: str | None, meaning: Callable[[str], T | None]) -> T | None:
        """What `meaning` makes of a cell; None when it is empty or `meaning` gives None."""
        text = row.values[column] if column else ""
        if not column or not text:
            return None
        value = meaning(text)
        if value is None:
            self.unread.append((column, text))
        return value


def truth_value(text: str) -> bool | None:
    """A truth value as integers, floats, Python and spreadsheets write it; None for others."""
    return {"0": False, "1": True}.get(label_word(text))


def stated(row: Row, column: str) -> str:
    """The text of a cell; empty where it is a placeholder."""
    text = row.values[column]
    return "" if vocabulary.is_placeholder(text) else text


def bad_value(row: Row, column: str, limit: str) -> Problem:
    """A value that is not in the published vocabulary; `limit` says which values are."""
    value = quoted(row.values[column])
    return Problem("bad-value", f"{row.location} has {column} = {value}; {limit}")


def licence_of(
    row: Row, column: str, optional: OptionalValues
) -> tuple[str | None, Problem | None]:
    """The licence a row publishes for its image; a `Problem` when it is unknown.

    It decides who may use the image, so that an unknown one cannot be left out as other values
    are. A placeholder states nothing, as an empty cell does: the dataset's licence holds.
    """
    licence = optional.read(row, column, vocabulary.licence)
    if licence is None and stated(row, column):
        known = ", ".join(vocabulary.LICENCES)
        return None, bad_value(row, column, f"it must be one of {known}")
    return licence, None


def one_hot(row: Row, classes: Iterable[str]) -> str | Problem:
    """The class whose column is 1 (``1``, ``1.0``); a `Problem` unless exactly one is."""
    chosen = []
    for name in classes:
        flag = truth_value(row.values[name])
        if flag is None:
            return bad_value(row, name, "it must be 0 or 1")
        if flag:
            chosen.append(name)
    if len(chosen) != 1:
        marked = ", ".join(chosen) or "none"
        return Problem("bad-value", f"{row.location} marks {marked}; exactly one class must be 1")
    return chosen[0]
