"""Files of captions: which of a folder are read, and their entries by format.

Tables and records: `.json`, `.jsonl`, `.ndjson`, `.csv`, `.tsv`, `.parquet`. One text per image,
as kohya-ss/sd-scripts and diffusers read it: `NAME.txt` or `NAME.caption`, beside the images or
apart from them. Reads files, writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dermaflux.captions.imported.conversations import flat
from dermaflux.captions.imported.entries import WHOLE_FILE, Entry, decoded
from dermaflux.captions.imported.fields import ID, TEXT
from dermaflux.captions.imported.json_texts import json_entries, json_lines_entries
from dermaflux.captions.imported.names import Names
from dermaflux.captions.imported.tables import table_entries
from dermaflux.errors import InputError, quoted

FORMATS = (
    "JSON (.json), JSON Lines (.jsonl, .ndjson), CSV and TSV (.csv, .tsv), Parquet (.parquet), and "
    "one .txt or .caption file per image"
)
_RECORDS = (".json", ".jsonl", ".ndjson")
_TABLES = (".csv", ".tsv", ".tab")
SIDECARS = (".txt", ".caption")
"""Files of one text each, named as its image."""
_SUFFIXES = frozenset((*_RECORDS, *_TABLES, *SIDECARS, ".parquet", ""))
_INSTEAD = {
    ".xlsx": "export it as CSV", ".xls": "export it as CSV", ".ods": "export it as CSV",
    ".zip": "unpack it and name its folder", ".gz": "unpack it", ".tar": "unpack it",
    ".7z": "unpack it", ".bz2": "unpack it", ".xz": "unpack it", ".zst": "unpack it",
}  # fmt: skip
_PASSED_OVER = ("__MACOSX", "@eaDir")
_ALONE = ("readme", "license", "licence", "requirements")
"""Texts that lie in folders of captions and are none."""
_TABULAR_LINES = 2  # of a .txt file in a folder that is no image's


def caption_files(path: Path) -> list[Path]:
    """The file, or every file of a folder and its folders that may hold captions, in order.

    Raises `InputError` when there is none.
    """
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if _may_hold(file, path)]
        if not files:
            raise InputError(f"{quoted(str(path))} holds no captions; they are read from {FORMATS}")
        return files
    if not path.is_file():
        raise InputError(
            f"caption.imported names {quoted(str(path))}, which does not exist; name a file of "
            "captions or a folder of them"
        )
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        advice = _INSTEAD.get(suffix, "convert it to one of them")
        raise InputError(
            f"captions file {quoted(str(path))} is not read; captions are read from {FORMATS}: "
            f"{advice}"
        )
    return [path]


def _may_hold(file: Path, folder: Path) -> bool:
    parts = file.relative_to(folder).parts
    hidden = any(part.startswith(".") or part in _PASSED_OVER for part in parts)
    # A folder of images has other files without a suffix; one of captions may be released so.
    wanted = file.suffix.lower() in _SUFFIXES and (file.suffix or file.parent == folder)
    return bool(wanted) and not hidden and file.stem.lower() not in _ALONE and file.is_file()


def entries(file: Path, root: Path, names: Names) -> tuple[list[Entry], str | None]:
    """Entries of a file, and its encoding where that is a guess.

    `root` is the folder from which the paths of texts per image count. Raises `InputError` when
    the file cannot be read.
    """
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return list(_parquet_entries(file)), None
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"captions file {quoted(str(file))} cannot be read ({error.strerror}); correct its "
            "permissions or copy it again"
        ) from None
    text, encoding = decoded(content, file)
    if suffix in (".jsonl", ".ndjson"):
        return json_lines_entries(text, file), encoding
    if suffix in (".json", ""):
        found = json_entries(text, file)
        if [entry.where for entry in found] == [WHOLE_FILE]:  # named as its image, or naming it
            found = [Entry(WHOLE_FILE, {"file": _name(file, root), **found[0].fields})]
        return found, encoding
    if suffix in SIDECARS and not _is_table(text, file, root, names):
        return [Entry("its text", {ID: _name(file, root), TEXT: text})], encoding
    return table_entries(text, file, names), encoding


def _name(file: Path, root: Path) -> str:
    """The path of a file below `root` without its suffix, which may be that of an image."""
    return file.stem if file == root else file.relative_to(root).with_suffix("").as_posix()


def _is_table(text: str, file: Path, root: Path, names: Names) -> bool:
    """Whether a `.txt` file is a table: one of no image, of several lines that name images."""
    if names.find(_name(file, root)) != (None, False):
        return False
    if file == root:
        return True
    if len(text.splitlines()) < _TABULAR_LINES:
        return False
    try:
        rows = table_entries(text, file, names)
    except InputError:
        return False
    return any(names.find(str(value))[0] for row in rows for value in row.fields.values())


def _parquet_entries(file: Path) -> Iterator[Entry]:
    """Rows without their images' bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file, columns=_columns(pq.read_schema(file)))
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"captions file {quoted(str(file))} cannot be read as Parquet "
            f"({' '.join(str(error).split())[:200]}); copy it again"
        ) from None
    number = 0
    for batch in table.to_batches():
        for fields in batch.to_pylist():
            number += 1
            yield Entry(f"row {number}", flat(fields))


def _columns(schema: Any) -> list[str]:
    """Columns of names and texts; of a struct, as Hugging Face stores images, the path."""
    import pyarrow as pa

    chosen = []
    for column in schema:
        if pa.types.is_struct(column.type):
            paths = [part.name for part in column.type if pa.types.is_string(part.type)]
            chosen += [f"{column.name}.{name}" for name in paths]
        elif not pa.types.is_binary(column.type) and not pa.types.is_large_binary(column.type):
            chosen.append(column.name)
    return chosen
