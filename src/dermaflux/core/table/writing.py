"""Writing shards: whole or not at all, each with the seal of its rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dermaflux.core.files import atomic_file, atomic_folder
from dermaflux.core.table import seal
from dermaflux.core.table.schema import SCHEMA

_ROWS_PER_GROUP = 100  # the Hub viewer's own size: a page of images reads one row group


class _SealedWriter:
    """A Parquet file whose metadata tells whether its rows are still those that were written."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema, self._seal = schema, seal.Seal()
        self._file = pq.ParquetWriter(path, schema, compression="zstd")

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """One row group."""
        group = pa.Table.from_pylist(list(rows), schema=self._schema)
        self._seal.add(seal.columns(group))
        self._file.write_table(group)

    def close(self) -> None:
        """Write seal and footer."""
        if self._file.is_open:
            self._file.add_key_value_metadata({seal.KEY: self._seal.dump()})
            self._file.close()


class ShardWriter:
    """Writes rows of one split as `<split>-00000-of-0000N.parquet`, in the order they come.

    A shard is closed once its images exceed `megabytes` (10^6 bytes). Memory holds one row group.
    """

    def __init__(
        self, folder: Path, split: str, megabytes: float, schema: pa.Schema = SCHEMA
    ) -> None:
        self._folder, self._split, self._limit = folder, split, int(megabytes * 1e6)
        self._schema = schema
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self._paths: list[Path] = []
        self._writer: _SealedWriter | None = None

    def add(self, row: dict[str, Any]) -> None:
        """Append one row; columns the row lacks are null."""
        self._rows.append(row)
        self._bytes += len((row.get("image") or {}).get("bytes") or b"")
        if len(self._rows) >= _ROWS_PER_GROUP:
            self._flush()
        if self._bytes >= self._limit:
            self._close_shard()

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            path = self._folder / f"{self._split}-{len(self._paths):05d}.parquet"
            self._writer = _SealedWriter(path, self._schema)
            self._paths.append(path)
        self._writer.write(self._rows)
        self._rows = []

    def _close_shard(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._bytes = 0

    def close(self) -> list[Path]:
        """Finish the last shard and give all shards their final names; return them."""
        self._close_shard()
        final = []
        for number, path in enumerate(self._paths):
            name = shard_name(self._split, number, len(self._paths))
            final.append(path.rename(path.with_name(name)))
        return final


def shard_name(split: str, number: int, count: int) -> str:
    """File name of shard `number` of `count`, as Hugging Face's hub names them."""
    return f"{split}-{number:05d}-of-{count:05d}.parquet"


def write_shard(rows: Sequence[dict[str, Any]], path: Path, schema: pa.Schema = SCHEMA) -> None:
    """Write one shard whole or not at all; columns a row lacks are null."""
    with atomic_file(path) as partial, closing(_SealedWriter(partial, schema)) as writer:
        for start in range(0, len(rows), _ROWS_PER_GROUP):
            writer.write(rows[start : start + _ROWS_PER_GROUP])


def write(
    rows: Iterable[dict[str, Any]], folder: Path, megabytes: float, schema: pa.Schema = SCHEMA
) -> None:
    """Write rows, split by their `split` value, into a folder that appears whole."""
    with atomic_folder(folder) as partial:
        writers: dict[str, ShardWriter] = {}
        for row in rows:
            split = row["split"]
            if split not in writers:
                writers[split] = ShardWriter(partial, split, megabytes, schema)
            writers[split].add(row)
        for writer in writers.values():
            writer.close()


def settings_json(settings: Mapping[str, Any]) -> str:
    """The column `sampler_settings`; equal settings have equal text."""
    return json.dumps(dict(settings), sort_keys=True, ensure_ascii=False)
