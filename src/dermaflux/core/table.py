"""The table of the project: every image, real or synthetic, is a row of these Parquet shards.

``datasets.load_dataset("parquet", data_dir="corpus")`` opens the shards as they are, with the
``image`` column decoded and the splits taken from the file names. Captions live in a separate
table, keyed by ``image_id``, so that captioning again never rewrites images.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dermaflux.core.decode_ahead import decode_ahead
from dermaflux.core.files import atomic_file, atomic_folder
from dermaflux.core.images import decode_image
from dermaflux.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from dermaflux.core.arrays import Pixels

SPLITS = ("train", "validation", "test")
SCALES = (128, 256, 512)

_FEATURES: dict[str, dict[str, str]] = {
    "image": {"_type": "Image"},
    **{
        name: {"dtype": "string", "_type": "Value"}
        for name in (
            "image_id",
            "source",
            "licence",
            "modality",
            "label",
            "diagnosis",
            "patient_id",
            "lesion_id",
            "skin_tone",
            "skin_tone_origin",
        )
    },
    "width": {"dtype": "int32", "_type": "Value"},
    "height": {"dtype": "int32", "_type": "Value"},
    "scale": {"dtype": "int32", "_type": "Value"},
    "split": {"dtype": "string", "_type": "Value"},
    "sha256": {"dtype": "string", "_type": "Value"},
    "phash": {"dtype": "string", "_type": "Value"},
    "duplicate_group": {"dtype": "string", "_type": "Value"},
    "generator": {"dtype": "string", "_type": "Value"},
    "prompt": {"dtype": "string", "_type": "Value"},
    "seed": {"dtype": "int64", "_type": "Value"},
    "steps": {"dtype": "int32", "_type": "Value"},
    "guidance": {"dtype": "float32", "_type": "Value"},
    "weights": {"dtype": "string", "_type": "Value"},
    "sampler_settings": {"dtype": "string", "_type": "Value"},
    "batch": {"dtype": "int32", "_type": "Value"},
}
"""Column -> Hugging Face feature. The last eight are null in real rows. `sampler_settings` is the
JSON object from which the generator opens its sampler again; `steps` and `guidance` repeat its
values where it has them. `batch` is the number of the sampling batch, which the bit-identical
re-run of a synthetic image needs."""

COLUMNS = tuple(_FEATURES)
METADATA = tuple(name for name in COLUMNS if name != "image")

_ARROW = {"string": pa.string(), "int32": pa.int32(), "int64": pa.int64(), "float32": pa.float32()}
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SCHEMA = pa.schema(
    [
        (name, _IMAGE if feature["_type"] == "Image" else _ARROW[feature["dtype"]])
        for name, feature in _FEATURES.items()
    ],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)
_ROWS_PER_GROUP = 100  # the Hub viewer's own size: a page of images reads one row group


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
        self._writer: pq.ParquetWriter | None = None

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
            self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
            self._paths.append(path)
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
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


def write_shard(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write one shard whole or not at all; columns a row lacks are null."""
    with (
        atomic_file(path) as partial,
        pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer,
    ):
        for start in range(0, len(rows), _ROWS_PER_GROUP):
            group = list(rows[start : start + _ROWS_PER_GROUP])
            writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))


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


def shards(folder: Path, split: str | None = None) -> list[Path]:
    """Parquet shards of a table folder, or of one split of it, in reading order.

    Raises `InputError` when there are none.
    """
    paths = sorted(folder.glob(f"{split or ''}*.parquet"))
    if not paths:
        which = f" of split {split}" if split else ""
        raise InputError(f"{folder} holds no Parquet shards{which}; run the stage that writes it")
    return paths


def metadata(
    folder: Path, columns: Sequence[str] = METADATA, split: str | None = None
) -> pd.DataFrame:
    """All rows of a table folder, or of one split, without touching pixels, in shard order.

    Raises `InputError` for a table that an earlier version wrote without one of the columns.
    """
    paths = shards(folder, split)
    missing = sorted(set(columns) - set(pq.read_schema(paths[0]).names))
    if missing:
        raise InputError(
            f"{folder} has no column {missing[0]}, so an earlier version wrote it; run the stage "
            "that writes it again"
        )
    tables = [pq.read_table(path, columns=list(columns)) for path in paths]
    return pa.concat_tables(tables).to_pandas()


def images(
    folder: Path, wanted: Iterable[str] | None = None, split: str | None = None
) -> Iterator[tuple[str, bytes]]:
    """Stream (image_id, encoded bytes) in shard order: all, the `wanted` ids or one split.

    Row groups that hold no wanted id and shards of other splits are not read.
    """
    selected = None if wanted is None else set(wanted)
    for path in shards(folder, split):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                ids = file.read_row_group(group, columns=["image_id"])["image_id"].to_pylist()
                if selected is not None and selected.isdisjoint(ids):
                    continue
                encoded = file.read_row_group(group, columns=["image"])["image"].to_pylist()
                for image_id, image in zip(ids, encoded, strict=True):
                    if selected is None or image_id in selected:
                        yield image_id, image["bytes"]


def decoded(
    folder: Path,
    wanted: Iterable[str] | None = None,
    split: str | None = None,
    side: int | None = None,
) -> Iterator[tuple[str, Pixels]]:
    """Stream (image_id, uint8 array (H, W, 3)) like `images`, decoded on all cores.

    With `side`, images of another size are resized to (side, side) with antialiasing.
    """
    import numpy as np
    from PIL import Image

    def pixels_of(item: tuple[str, bytes]) -> tuple[str, Pixels]:
        image = decode_image(item[1])
        if side is not None and image.size != (side, side):
            image = image.resize((side, side), Image.Resampling.BICUBIC)
        return item[0], np.asarray(image)

    yield from decode_ahead(pixels_of, images(folder, wanted, split))


def pixels(folder: Path, wanted: Sequence[str], side: int | None = None) -> dict[str, Pixels]:
    """image_id -> uint8 array (H, W, 3); resized to (side, side) with antialiasing when given."""
    arrays = dict(decoded(folder, wanted, side=side))
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise InputError(
            f"{len(missing)} images such as {missing[0]} are not in {folder}; "
            "run the stages in order"
        )
    return arrays
