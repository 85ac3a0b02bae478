"""Reading shards: the one place where a damaged or an edited table is told from a good one."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from dermaflux.core.decode_ahead import decode_ahead
from dermaflux.core.files import damaged
from dermaflux.core.hashing import sha256
from dermaflux.core.images import decode_image
from dermaflux.core.table import seal
from dermaflux.core.table.schema import METADATA, SPLITS
from dermaflux.errors import InputError, one_line, quoted

if TYPE_CHECKING:
    import pandas as pd

    from dermaflux.core.arrays import Pixels

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.parquet")
_STAGES = {"corpus": "ingest", "captions": "caption", "synthetic": "synthesize"}


def shards(folder: Path, split: str | None = None) -> list[Path]:
    """Parquet shards of a table folder, or of one split of it, in reading order.

    Raises `InputError` when there are none, when some are missing, or for a file that is none.
    """
    paths = sorted(folder.glob(f"{split or ''}*.parquet"))
    paths = [path for path in paths if not path.name.startswith(".")]
    if not paths:
        which = f" of split {split}" if split else ""
        raise InputError(f"{folder} holds no Parquet shards{which}; run the stage that writes it")
    _check_names(paths)
    return paths


def candidates(pool: Path) -> Path:
    """Folder of the table of all candidates, without images, in the folder of a chosen pool."""
    # Readers of Parquet folders, ours and others', pass over a name that starts with a dot.
    return pool / ".candidates"


def _check_names(paths: Sequence[Path]) -> None:
    """Raise `InputError` unless these are all shards of their tables: each name says how many."""
    tables: dict[str, list[tuple[int, int]]] = {}
    for path in paths:
        name = _SHARD.fullmatch(path.name)
        if name is None:
            raise InputError(
                f"{one_line(path)} is not a shard that the stage {_stage(path)} wrote, whose names "
                "are like train-00000-of-00001.parquet; move it out of that folder"
            )
        tables.setdefault(name[1], []).append((int(name[2]), int(name[3])))
    for table, found in tables.items():
        total = found[0][1]
        if found != [(number, total) for number in range(total)]:
            raise InputError(
                f"{paths[0].parent} holds {len(found)} files {one_line(table)}-*.parquet, not "
                f"number 0 to {total - 1} of {total} as their names say: one is missing or of "
                f"another run; run the stage {_stage(paths[0])} again"
            )


def metadata(
    folder: Path, columns: Sequence[str] = METADATA, split: str | None = None
) -> pd.DataFrame:
    """All rows of a table folder, or of one split, without touching pixels, in shard order.

    Raises `InputError` for a table that an earlier version wrote without one of the columns.
    """
    tables = []
    for path in shards(folder, split):
        with _reading(path):
            missing = sorted(set(columns) - set(pq.read_schema(path).names))
            if missing:
                raise InputError(
                    f"{path} has no column {missing[0]}, so an earlier version wrote it; run the "
                    f"stage {_stage(path)} again"
                )
            rows = pq.read_table(path, columns=list(columns))
            _check_seal(path, rows)
            _check_split(path)
            tables.append(rows)
    return pa.concat_tables(tables).to_pandas()


def _check_split(path: Path) -> None:
    """Raise `InputError` for a whole shard of one split that has the name of another."""
    named = path.name.split("-")[0]
    if named not in SPLITS or "split" not in pq.read_schema(path).names:
        return
    for split in pq.read_table(path, columns=["split"])["split"].unique().to_pylist():
        if split != named:
            raise InputError(
                f"{path} holds rows of split {quoted(split)}, so it was copied or renamed after "
                f"the stage {_stage(path)} wrote it; run that stage again"
            )


def columns(folder: Path) -> list[str]:
    """Names of the columns that the first shard of a table folder has, whatever its contract."""
    path = shards(folder)[0]
    with _reading(path):
        _seal(path)
        names: list[str] = pq.read_schema(path).names
    return names


def check_shard(path: Path) -> None:
    """Raise `InputError` unless every column of a shard is as it was written; reads no images.

    Images are checked where they are read.
    """
    with _reading(path):
        _check_seal(path, pq.read_table(path, columns=_all_but_images(path)))


def is_whole(path: Path) -> bool:
    """Whether a shard of unfinished work is there; a damaged one is removed and told of."""
    if not path.exists():
        return False
    try:
        check_shard(path)
    except InputError as error:
        print(f"{path} is not used and made again: {error}", flush=True)
        path.unlink(missing_ok=True)
        return False
    return True


def _stage(path: Path) -> str:
    return _STAGES.get(path.parent.name, "that writes it")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Inside the block, what pyarrow says of a damaged shard becomes one sentence."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError) as error:
        # pyarrow raises a bare OSError for bytes it cannot decode; one with a number is the disk's.
        # EINVAL is a seek before the beginning of a cut file.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise damaged(path, error, f"the stage {_stage(path)}") from None


def _seal(path: Path) -> str:
    """The seal of a shard; raises `InputError` where it has none: editors do not keep it."""
    stored = (pq.read_metadata(path).metadata or {}).get(seal.KEY)
    if stored is None:
        raise InputError(
            f"{path} was not written by this version of the stage {_stage(path)} but edited, or "
            "made by another program; run that stage again, which writes it anew"
        )
    return str(stored.decode())


def _check_seal(path: Path, rows: pa.Table) -> None:
    """Raise `InputError` when columns of a shard are not those that its stage wrote."""
    text = _seal(path)
    name = seal.broken(text, seal.columns(rows))
    if name is None:
        return
    everything = seal.columns(pq.read_table(path, columns=_all_but_images(path)))
    index = seal.first_edited(text, everything)
    if index is None:
        where = "rows were added or taken away"
    else:
        ids = everything.get("image_id", [])
        row = f" ({quoted(ids[index])})" if index < len(ids) else ""
        where = f"row {index + 1}{row} is not as it was written, as column {name} shows"
    raise InputError(
        f"{path} was edited after the stage {_stage(path)} wrote it: {where}; run that stage "
        "again, and change labels and splits in the data it reads"
    )


def _all_but_images(path: Path) -> list[str]:
    return [name for name in pq.read_schema(path).names if name != "image"]


def images(
    folder: Path, wanted: Iterable[str] | None = None, split: str | None = None
) -> Iterator[tuple[str, bytes]]:
    """Stream (image_id, encoded bytes) in shard order: all, the `wanted` ids or one split.

    Row groups that hold no wanted id and shards of other splits are not read. Raises `InputError`
    for an image that has other bytes than its `sha256` says.
    """
    selected = None if wanted is None else set(wanted)
    for path in shards(folder, split):
        with _reading(path):
            _seal(path)
            groups = pq.read_metadata(path).num_row_groups
        for group in range(groups):
            for image_id, encoded, expected in _group(path, group, selected):
                if expected is not None and sha256(encoded) != expected:
                    raise InputError(
                        f"image {quoted(image_id)} of {path} has other bytes than its sha256 "
                        f"{quoted(expected[:12])} says; run the stage {_stage(path)} again"
                    )
                yield image_id, encoded


def _group(
    path: Path, group: int, selected: set[str] | None
) -> list[tuple[str, bytes, str | None]]:
    """Wanted image_id, encoded bytes and sha256 of a row group."""
    with _reading(path), pq.ParquetFile(path) as file:
        about = file.read_row_group(group, columns=["image_id", "sha256"])
        ids = about["image_id"].to_pylist()
        if selected is not None and selected.isdisjoint(ids):
            return []
        expected = about["sha256"].to_pylist()
        encoded = file.read_row_group(group, columns=["image"])["image"].to_pylist()
        if any(image is None or image["bytes"] is None for image in encoded):
            raise ValueError("a row holds no image")
    return [
        (image_id, image["bytes"], digest)
        for image_id, image, digest in zip(ids, encoded, expected, strict=True)
        if selected is None or image_id in selected
    ]


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
