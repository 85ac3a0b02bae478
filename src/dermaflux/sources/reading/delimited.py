"""Text files of separated values: their encoding, their separator and where their columns are.

Reads the beginning of a file and decides; `tables.read_csv` reads the rows. Text is UTF-8 or
UTF-16, else Western European as spreadsheets on Windows write it; values are separated by commas,
semicolons, tabs or bars; the first line may be Excel's ``sep=;``. Column names may differ from what
is asked for in case and in blanks around them, in nothing else.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from dermaflux.core.file_names import letters_and_digits
from dermaflux.errors import InputError, one_line, quoted

SEPARATORS = (",", ";", "\t", "|")
"""In this order: a file whose columns are found with commas is a file with commas."""

_HEAD = 1 << 16  # bytes that decide
_HEADER_ROWS = 20  # among which a header is looked for: blank lines and `sep=` come first
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_EXPORT = "export it as CSV"
_OTHER_FORMATS = (
    (b"\xd0\xcf\x11\xe0", "an Excel workbook", _EXPORT),
    (b"PAR1", "a Parquet file", _EXPORT),
    (b"ARROW1", "an Arrow file", _EXPORT),
    (b"\x89HDF", "an HDF5 file", _EXPORT),
    (b"SQLite format 3", "an SQLite database", _EXPORT),
    (b"{\\rtf", "a rich text document", _EXPORT),
    (b"%PDF", "a PDF document", _EXPORT),
    (b"\x1f\x8b", "compressed with gzip", "unpack it"),
    (b"BZh", "compressed with bzip2", "unpack it"),
    (b"\xfd7zXZ", "compressed with xz", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "unpack it"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"version https://git-lfs", "a Git LFS pointer", "run `git lfs pull`"),
)
"""First bytes, what such a file is, and what to do. None of them begins a table."""

_ZIP = b"PK\x03\x04"
_WORKBOOKS = (
    (b"mimetypeapplication/vnd.oasis", "an OpenDocument spreadsheet"),
    (b"[Content_Types].xml", "an Excel workbook"),
    (b"docProps/", "an Excel workbook"),
    (b"xl/", "an Excel workbook"),
)
"""Names inside a zip archive that is a workbook."""

_OTHER_TEXTS = (
    ("<", "an HTML or XML page", "download it again or export it as CSV"),
    ("{", "a JSON file", _EXPORT),
    ("[", "a JSON file", _EXPORT),
)
"""The same of texts, asked only once no column was found, for a header may begin like this."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file is read, and where its columns are."""

    encoding: str
    separator: str
    header: tuple[str, ...]
    """Names of the columns, without blanks and quotes around them."""
    skipped: int
    """Rows up to and with the header."""

    def index(self, name: str) -> int | None:
        """Position of a column; None where there is none, or more than one of that name."""
        places = self.places(name)
        return places[0] if len(places) == 1 else None

    def places(self, name: str) -> list[int]:
        """Positions of the columns of a name; of those that differ in case where none has it."""
        same = [place for place, other in enumerate(self.header) if other == name]
        wanted = _bare(name).casefold()
        return same or [
            place for place, other in enumerate(self.header) if other.casefold() == wanted
        ]


def reader(file: TextIO, separator: str) -> Any:
    """Rows of a text file; raises `csv.Error` where a quotation mark is left open."""
    # Not strict, a quotation mark that is never closed would swallow rows in silence.
    return csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)


@contextmanager
def one_sentence(path: Path) -> Iterator[None]:
    """Turns what reading a text can raise into an `InputError`."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{one_line(path)} is missing; download it into that folder") from None
    except UnicodeError as error:
        reason = getattr(error, "reason", "damaged text")
        raise InputError(
            f"{one_line(path)} is not CSV text in UTF-8, UTF-16 or a Western European encoding "
            f"({reason}); download it again or export it as UTF-8"
        ) from None
    except csv.Error as error:
        raise InputError(
            f"{one_line(path)} is not well-formed CSV ({error}); correct the quotation marks or "
            "export it again"
        ) from None
    except OSError as error:
        raise InputError(f"{one_line(path)} cannot be read ({error.strerror}); check it") from None


def encodings(path: Path) -> tuple[str, ...]:
    """Encodings to read a table in; the second where its bytes are not text in the first.

    Raises `InputError` when the first bytes say that the file is no text.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    for magic, what, fix in _OTHER_FORMATS:
        if head.startswith(magic):
            raise InputError(f"{one_line(path)} is {what}, not CSV text; {fix}")
    if head.startswith(_ZIP):
        what = next((what for name, what in _WORKBOOKS if name in head), "a zip archive")
        fix = "unpack it" if what == "a zip archive" else _EXPORT
        raise InputError(f"{one_line(path)} is {what}, not CSV text; {fix}")
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return (encoding,)
    # Western text in UTF-16: every second byte is zero.
    first, second = head[::2].count(0), head[1::2].count(0)
    if max(first, second) > len(head) / 4 and min(first, second) < len(head) / 64:
        return ("utf-16-be" if first > second else "utf-16-le",)
    if _has_zero_byte(path):
        raise InputError(
            f"{one_line(path)} holds zero bytes, so it is not CSV text; download it again"
        )
    return ("utf-8", "cp1252")


def _has_zero_byte(path: Path) -> bool:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            if 0 in block:
                return True
    return False


def layout(
    path: Path, encoding: str, needed: Sequence[str], optional: Sequence[str] = ()
) -> Layout:
    """The first separator with which every needed column is found.

    Raises `InputError` when one of them is missing, or when two columns have a wanted name.
    """
    found, problem = [], None
    for separator in SEPARATORS:
        try:
            found.append(_header(path, encoding, separator))
        except csv.Error as error:  # quotation marks that only another separator explains
            problem = problem or error
    if problem and not found:
        raise problem
    complete = [layout for layout in found if all(layout.places(name) for name in needed)]
    chosen = complete[0] if complete else max(found, key=lambda layout: _fit(layout, needed))
    for name in (*needed, *optional):
        if len(places := chosen.places(name)) > 1:
            both = " and ".join(quoted(chosen.header[place]) for place in places[:2])
            raise InputError(
                f"{one_line(path)} has two columns {both}; rename or remove one of them"
            )
    if not complete:
        raise _missing(path, chosen, needed)
    return chosen


def _fit(layout: Layout, needed: Sequence[str]) -> tuple[int, int]:
    """Of layouts that lack a column, the error message shows the one that finds most."""
    return sum(bool(layout.places(name)) for name in needed), len(layout.header)


def _header(path: Path, encoding: str, separator: str) -> Layout:
    with path.open(encoding=encoding, newline="") as file:
        rows = reader(file, separator)
        for number, row in enumerate(rows, 1):
            first = _bare(separator.join(row))
            if match := re.fullmatch(r"sep=(.)?.*", first, re.IGNORECASE | re.DOTALL):
                chosen = match[1] or separator
                if number == 1 and chosen != separator:
                    return Layout(encoding, separator, (), 0)
            elif any(row):
                return Layout(encoding, separator, tuple(map(_bare, row)), number)
            if number == _HEADER_ROWS:
                break
    return Layout(encoding, separator, (), 0)


def _bare(name: str) -> str:
    """A name without blanks, quotation marks and byte order marks around it."""
    return name.strip("\ufeff\u200b\"'“”‘’ \t\r\n\u00a0")


def _missing(path: Path, layout: Layout, needed: Sequence[str]) -> InputError:
    """What is wrong with a file that lacks a needed column."""
    name = next(name for name in needed if not layout.places(name))
    for begin, what, fix in _OTHER_TEXTS:
        if layout.header and layout.header[0].startswith(begin):
            return InputError(f"{one_line(path)} is {what}, not CSV text; {fix}")
    if not layout.header:
        return InputError(f"{one_line(path)} is empty; download it again or export it again")
    like = {letters_and_digits(other): other for other in layout.header}
    close = difflib.get_close_matches(letters_and_digits(name), like, n=1)
    hint = f"; did you mean {quoted(like[close[0]])}, else" if close else ";"
    return InputError(
        f"{one_line(path)} lacks the column {quoted(name)}, its columns are "
        f"{quoted(', '.join(layout.header))}{hint} download the file again or rename its column"
    )


def has_columns(path: Path, names: Sequence[str]) -> bool:
    """Whether a file is a table with these columns."""
    try:
        with one_sentence(path):
            first, *other = encodings(path)
            try:
                layout(path, first, names)
            except UnicodeDecodeError:
                layout(path, (*other, first)[0], names)
    except InputError:
        return False
    return True
