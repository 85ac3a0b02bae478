"""The table opens in `datasets`, keeps its contract, and appears whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dermaflux.core import table
from dermaflux.core.hashing import sha256
from dermaflux.errors import InputError


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (128, 128), (value, 10, 20)).save(buffer, "PNG")
    return buffer.getvalue()


def rows(count: int) -> Iterator[dict[str, Any]]:
    for index in range(count):
        content = png(index % 256)
        yield {
            "image": {"bytes": content, "path": f"{index:04d}.png"},
            "image_id": f"toy/{index:04d}",
            "label": "malignant" if index % 5 == 0 else "benign",
            "width": 128,
            "height": 128,
            "scale": 128,
            "split": "test" if index % 10 == 9 else "train",
            "sha256": sha256(content),
        }


def test_datasets_opens_the_shards_as_images_with_their_splits(tmp_path: Path) -> None:
    table.write(rows(250), tmp_path / "corpus", megabytes=0.02)
    assert len(table.shards(tmp_path / "corpus")) > 3
    loaded = datasets.load_dataset(
        "parquet", data_dir=str(tmp_path / "corpus"), cache_dir=str(tmp_path / "cache")
    )
    assert {split: len(loaded[split]) for split in loaded} == {"train": 225, "test": 25}
    first = loaded["train"][0]
    assert isinstance(first["image"], Image.Image)
    assert first["image"].getpixel((0, 0)) == (0, 10, 20)
    assert loaded["train"].column_names == list(table.COLUMNS)


def test_metadata_never_reads_the_image_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.write(rows(20), tmp_path / "corpus", megabytes=64)
    read = pq.read_table
    asked: list[list[str]] = []

    def spy(path: Path, columns: list[str]) -> Any:
        asked.append(columns)
        return read(path, columns=columns)

    monkeypatch.setattr(pq, "read_table", spy)
    frame = table.metadata(tmp_path / "corpus")
    assert len(frame) == 20
    assert all("image" not in columns for columns in asked)


def test_pixels_are_found_by_id_and_missing_ids_are_named(tmp_path: Path) -> None:
    table.write(rows(250), tmp_path / "corpus", megabytes=0.02)
    pixels = table.pixels(tmp_path / "corpus", ["toy/0201", "toy/0003"])
    assert pixels["toy/0201"].shape == (128, 128, 3)
    assert (pixels["toy/0201"][0, 0] == np.array([201, 10, 20])).all()
    with pytest.raises(InputError, match="toy/9999"):
        table.pixels(tmp_path / "corpus", ["toy/9999"])


def test_only_the_wanted_images_of_the_split_stream_in_shard_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.write(rows(250), tmp_path / "corpus", megabytes=0.02)
    expected = {row["image_id"]: row for row in rows(250)}
    everything = dict(table.images(tmp_path / "corpus"))
    assert everything == {name: row["image"]["bytes"] for name, row in expected.items()}
    held_out = [name for name, _ in table.images(tmp_path / "corpus", split="test")]
    assert held_out == [name for name, row in expected.items() if row["split"] == "test"]
    read: list[tuple[int, str]] = []
    row_group = pq.ParquetFile.read_row_group

    def spy(file: pq.ParquetFile, group: int, columns: list[str]) -> Any:
        read.append((group, columns[0]))
        return row_group(file, group, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    wanted = ["toy/0201", "toy/0003"]
    assert [name for name, _ in table.images(tmp_path / "corpus", wanted)] == wanted[::-1]
    groups = len([column for _, column in read if column == "image_id"])
    assert groups > 3
    assert len([column for _, column in read if column == "image"]) == 2


def test_decoded_images_are_resized_only_where_their_size_differs(tmp_path: Path) -> None:
    table.write(rows(3), tmp_path / "corpus", megabytes=64)
    for side, expected in ((None, 128), (128, 128), (32, 32)):
        decoded = list(table.decoded(tmp_path / "corpus", side=side))
        assert [name for name, _ in decoded] == [f"toy/{index:04d}" for index in range(3)]
        for index, (_, pixels) in enumerate(decoded):
            assert pixels.dtype == np.uint8
            # Of one colour, which resizing keeps.
            assert np.array_equal(pixels, np.tile([index, 10, 20], (expected, expected, 1)))


def test_a_single_shard_has_the_schema_and_nulls_where_a_row_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "train-00000-of-00001.parquet"
    table.write_shard([row | {"split": "train"} for row in rows(205)], path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    file = pq.ParquetFile(path)
    assert file.schema_arrow.equals(table.SCHEMA)
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    assert sizes == [100, 100, 5]  # a page of the Hub's viewer
    frame = table.metadata(tmp_path)
    assert frame["prompt"].isna().all()
    assert frame["width"].eq(128).all()


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        table.write(rows(120), tmp_path / name, megabytes=0.02)
    for left, right in zip(table.shards(tmp_path / "a"), table.shards(tmp_path / "b"), strict=True):
        assert left.name == right.name
        assert left.read_bytes() == right.read_bytes()


def test_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    table.write(rows(10), tmp_path / "corpus", megabytes=64)
    before = sorted(path.name for path in (tmp_path / "corpus").iterdir())

    def broken() -> Iterator[dict[str, Any]]:
        yield from rows(5)
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        table.write(broken(), tmp_path / "corpus", megabytes=64)
    assert sorted(path.name for path in (tmp_path / "corpus").iterdir()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_empty_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no Parquet shards"):
        table.metadata(tmp_path)
