"""Delimited text as entries: comma, semicolon, tab or bar, with a header or without one.

No word is lost in silence: a row with more fields than the header is either put together again,
where it can only be one caption, or it is refused with its line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from dermaflux.captions.imported.entries import Entry
from dermaflux.captions.imported.fields import ID, TEXT, is_field_name, is_image_name
from dermaflux.captions.imported.names import Names
from dermaflux.errors import InputError, quoted

_DELIMITERS = (",", "\t", ";", "|")
_HEADERLESS = (ID, TEXT)


def table_entries(content: str, file: Path, names: Names) -> list[Entry]:
    """Rows of a delimited text. Raises `InputError` naming the line that cannot be read."""
    lines = list(io.StringIO(content, newline=""))
    first = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    delimiter = None
    if first < len(lines) and lines[first].strip().lower().startswith("sep="):  # Excel's own line
        delimiter = lines[first].strip()[4:5] or None
        first += 1
    if first >= len(lines):
        return []
    delimiter = delimiter or _delimiter(lines[first], file, names)
    rows = _rows(lines, first, delimiter, file)
    _, _, header = next(rows, (0, None, list[str]()))
    if not header:  # separators alone
        return []
    while header and not header[-1]:  # as in rows: a word below no name would be lost
        header.pop()
    start = first
    if any(names.find(cell)[0] for cell in header) and not any(map(is_field_name, header)):
        if len(header) != len(_HEADERLESS):
            raise InputError(
                f"captions file {quoted(str(file))} has no header and {len(header)} columns; add "
                f"a first line that names them, with {ID} and {TEXT} among them"
            )
        header, rows = list(_HEADERLESS), _rows(lines, start, delimiter, file)
    _check_header(header, file)
    return [_entry(header, cells, line, raw, delimiter) for line, raw, cells in rows]


def _delimiter(line: str, file: Path, names: Names) -> str:
    """The one that makes most known column names or images of the first line."""

    def score(delimiter: str) -> tuple[int, bool, bool, bool]:
        cells = _cells(line, delimiter)
        return (
            sum(map(is_field_name, cells)) if len(cells) > 1 else 0,
            len(cells) > 1 and any(names.find(cell)[0] for cell in cells),
            len(cells) > 1,
            delimiter == "\t" and file.suffix.lower() in (".tsv", ".tab"),
        )

    return max(_DELIMITERS, key=score)


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])


def _rows(
    lines: Sequence[str], first: int, delimiter: str, file: Path
) -> Iterator[tuple[int, str | None, list[str]]]:
    """Number of the first line, the line itself where there is only one, and the fields."""
    # `strict` refuses a quote that is never closed, which would swallow every row after it.
    reader = csv.reader(lines[first:], delimiter=delimiter, skipinitialspace=True, strict=True)
    while True:
        start = first + reader.line_num
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "field limit" in str(error):
                raise InputError(
                    f"captions file {quoted(str(file))} has at line {start + 1} a text of more "
                    f"than {csv.field_size_limit():,} characters, as after a double quote that is "
                    "never closed; close it or shorten the text"
                ) from None
            raise InputError(
                f"captions file {quoted(str(file))} cannot be read at line {start + 1} ({error}); "
                "enclose texts in double quotes, and double those inside them"
            ) from None
        if any(cell.strip() for cell in cells):
            single = first + reader.line_num == start + 1
            yield start + 1, lines[start] if single else None, [cell.strip() for cell in cells]


def _check_header(header: Sequence[str], file: Path) -> None:
    named = [name.lower() for name in header if name]
    repeated = sorted({name for name in named if named.count(name) > 1})
    if repeated:
        raise InputError(
            f"captions file {quoted(str(file))} has more than one column {quoted(repeated[0])}; "
            "rename or remove all but one"
        )
    if len(header) == 1:
        raise InputError(
            f"captions file {quoted(str(file))} has one column, {quoted(header[0])}; give it a "
            f"first line such as {ID},{TEXT} and two columns separated by commas, semicolons or "
            "tabs"
        )


def _entry(
    header: Sequence[str], cells: list[str], line: int, raw: str | None, delimiter: str
) -> Entry:
    while len(cells) > len(header) and not cells[-1]:  # spreadsheets add empty fields
        cells.pop()
    if len(cells) > len(header) == 2 and raw is not None and '"' not in raw:
        # One field is the image, and whatever is before or after it is its caption.
        image_last = is_image_name(header[1]) and not is_image_name(header[0])
        raw = raw.rstrip().rstrip(delimiter)
        halves = raw.rsplit(delimiter, 1) if image_last else raw.split(delimiter, 1)
        cells = [part.strip() for part in halves]
    fits = len(cells) == len(header)
    fields = {
        name or f"column {number}": cell
        for number, (name, cell) in enumerate(zip(header, cells, strict=False), 1)
    }
    return Entry(f"line {line}", fields, None if fits else (len(cells), len(header)))
