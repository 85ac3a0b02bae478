"""What shows that the rows of a shard are still those that were written.

A seal is text in the shard's metadata. It finds edits by hand, not forgery: whoever writes a table
can write its seal. Images are not in it: each row has the `sha256` of its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

KEY = b"dermaflux"
"""Key of the seal in the metadata of a Parquet file."""
_CHECKSUM_BYTES = 4


def columns(rows: pa.Table) -> dict[str, list[Any]]:
    """What is sealed of some rows: name -> values of every column but `image`."""
    return {name: rows[name].to_pylist() for name in rows.column_names if name != "image"}


class Seal:
    """Digests of a table's columns, and a checksum of every row to name the one that differs.

    Values are text, numbers, truth values or None; how they are divided into row groups does not
    count.
    """

    def __init__(self) -> None:
        self._columns: dict[str, Any] = {}
        self._rows = bytearray()

    def add(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """The next rows, as name -> values; always the same columns."""
        for name, values in columns.items():
            self._columns.setdefault(name, hashlib.sha256()).update(_lines(values))
        for checksum in _checksums(columns):
            self._rows += checksum

    def dump(self) -> str:
        """The seal as text."""
        digests = {name: digest.hexdigest() for name, digest in self._columns.items()}
        return json.dumps({"columns": digests, "rows": base64.b64encode(self._rows).decode()})


def broken(seal: str, columns: Mapping[str, Sequence[Any]]) -> str | None:
    """The first of some columns of a table whose values are not those that were sealed.

    Raises `ValueError` or `KeyError` for a text that is no seal of such columns.
    """
    digests = json.loads(seal)["columns"]
    for name, values in columns.items():
        if hashlib.sha256(_lines(values)).hexdigest() != digests[name]:
            return name
    return None


def first_edited(seal: str, columns: Mapping[str, Sequence[Any]]) -> int | None:
    """Index of the first row that differs from what was sealed, given all columns of it.

    None when the rows that are there are as they were and others were taken away or added.
    """
    rows = base64.b64decode(json.loads(seal)["rows"])
    sealed = [
        rows[start : start + _CHECKSUM_BYTES] for start in range(0, len(rows), _CHECKSUM_BYTES)
    ]
    pairs = zip(sealed, _checksums(columns), strict=False)
    return next((index for index, (old, new) in enumerate(pairs) if old != new), None)


def _lines(values: Sequence[Any]) -> bytes:
    return "".join(f"{value!r}\n" for value in values).encode()


def _checksums(columns: Mapping[str, Sequence[Any]]) -> Iterator[bytes]:
    for row in zip(*(columns[name] for name in sorted(columns)), strict=True):
        yield zlib.crc32(repr(row).encode()).to_bytes(_CHECKSUM_BYTES)
