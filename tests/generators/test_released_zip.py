"""Released images as a zip archive, as people have it and as an attacker would make it."""

from __future__ import annotations

import io
import os
import resource
import struct
import zipfile
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from layouts import random_image

from dermaflux.core import table
from dermaflux.errors import InputError
from dermaflux.generators.released.model import files
from dermaflux.generators.released.sampling import collect
from dermaflux.params import Synthesize

LABELS = ("benign", "malignant")


def picture(seed: int) -> bytes:
    out = io.BytesIO()
    random_image(seed, 128, 128).save(out, "PNG")
    return out.getvalue()


GOOD = {f"{label}/{n}.png": picture(10 * n + k) for n in range(3) for k, label in enumerate(LABELS)}


def zipped(path: Path, contents: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents.items():
            info = zipfile.ZipInfo(name)
            info.filename = name  # as it is: the constructor changes some
            info.compress_type = method
            archive.writestr(info, content)
    return path


def pool(folder: Path, output: Path) -> pd.DataFrame:
    section = Synthesize(images=6, scale=128, shard_images=4)
    collect.collect(section, folder, output, output.with_name(f"{output.name}-report"))
    return table.metadata(output)


def test_classes_are_counted_by_name_as_they_are_read(tmp_path: Path) -> None:
    """Of a zip, a folder and a table alike, against the reader that opens every image."""
    contents = {**GOOD, "benign/more.jpg": picture(99), "malignantly/1.png": b"", "a.txt": b""}
    for name, content in contents.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    images = [{"bytes": content} for name, content in GOOD.items()]
    labels = [name.split("/")[0] for name in GOOD]
    pd.DataFrame({"image": images, "label": labels}).to_parquet(tmp_path / "table.parquet")
    for path, expected in (
        (zipped(tmp_path / "pool.zip", contents), {"benign": 4, "malignant": 3, "": 1}),
        (tmp_path / "folder", {"benign": 4, "malignant": 3, "": 1}),
        (tmp_path / "table.parquet", {"benign": 3, "malignant": 3}),
    ):
        assert files.named(path) == expected
        assert files.named(path) == Counter(label for _, label, _ in files.contents(path))


def test_a_zip_is_the_same_pool_as_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "released"
    for name, content in GOOD.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    extra = {"__MACOSX/benign/1.png": b"x", "benign/.DS_Store": b"x", "README.md": b"x"}
    archive = zipped(tmp_path / "released.ZIP", {**dict(reversed(GOOD.items())), **extra})
    pd.testing.assert_frame_equal(pool(archive, tmp_path / "a"), pool(folder, tmp_path / "b"))
    assert [path.name for path in tmp_path.glob("*.png")] == []
    renamed = archive.rename(tmp_path / "download")  # what it is, its first bytes say
    assert len(pool(renamed, tmp_path / "c")) == 6


def test_names_of_members_lead_nowhere(tmp_path: Path) -> None:
    odd = {
        "../../benign/1.png": picture(1),
        "/malignant/1.png": picture(2),
        "C:\\pool\\benign\\2.png": picture(3),
        "x/" * 100 + "malignant/" + "n" * 200 + ".png": picture(4),
        "benign/\x1b[2J.png": picture(5),
        "malignant/é.png": picture(6),
    }
    before = set(tmp_path.parent.rglob("*"))
    images, refused, count = files.listing(zipped(tmp_path / "odd.zip", odd))
    assert (len(images), refused, count) == (6, [], 6)
    assert not any(part in ("..", "") for image in images for part in image.name.split("/"))
    assert "C:/pool/benign/2.png" in {image.name for image in images}
    assert set(tmp_path.parent.rglob("*")) - before == {tmp_path / "odd.zip"}
    assert len(pool(tmp_path / "odd.zip", tmp_path / "pool")) == 6


def test_a_name_that_occurs_twice_is_two_images(tmp_path: Path) -> None:
    path = tmp_path / "twice.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in GOOD.items():
            archive.writestr(name, content)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("benign/0.png", picture(99))
    names = {image.name for image in files.listing(path)[0]}
    assert names == {*GOOD, "benign/0#2.png"}
    assert len(pool(path, tmp_path / "pool")) == 6


def test_members_that_are_no_image_cost_themselves_only(tmp_path: Path) -> None:
    path = zipped(tmp_path / "pool.zip", {
        **GOOD, "benign/bomb.png": bytes(50_000_000), "malignant/empty.png": b"",
        "benign/inner.zip": b"PK\3\4", "benign/damaged.png": picture(50),
    })  # fmt: skip
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("benign/damaged.png").header_offset + 200
    content[at : at + 20] = bytes(20)
    path.write_bytes(content)
    images, refused, count = files.listing(path)
    assert (len(images), count) == (6, 10)
    assert {(one.file, one.rule) for one in refused} == {
        ("benign/bomb.png", "too-large"), ("malignant/empty.png", "damaged"),
        ("benign/inner.zip", "archive"), ("benign/damaged.png", "damaged"),
    }  # fmt: skip
    assert all(one.reason.isprintable() and ";" in one.reason for one in refused)


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def _encrypted(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for magic, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.find(magic)
        while at >= 0:
            content[at + flags] |= 1
            at = content.find(magic, at + 4)
    path.write_bytes(content)


def _overlapping(path: Path) -> None:
    """Every entry of the directory points to the largest member."""
    zipped(path, {f"benign/{n}.png": b"x" for n in range(500)} | {"benign/z.png": picture(0)})
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        last = archive.getinfo("benign/z.png")
        directory = archive.start_dir
    at = content.find(b"PK\1\2", directory)
    while at >= 0:
        struct.pack_into("<III", content, at + 16, last.CRC, last.compress_size, last.file_size)
        struct.pack_into("<I", content, at + 42, last.header_offset)
        at = content.find(b"PK\1\2", at + 4)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_truncated, "is not a whole zip archive .*; download it again"),
        (_encrypted, "is encrypted; unpack it with its password"),
        (_overlapping, "overlap, as in a zip bomb"),
        (lambda path: path.write_bytes(b""), "is not a whole zip archive"),
        (lambda path: path.write_bytes(b"<html>404</html>"), "is not a whole zip archive"),
    ],
)
def test_an_archive_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, damage: object, sentence: str
) -> None:
    path = zipped(tmp_path / "pool.zip", GOOD)
    damage(path)  # type: ignore[operator]
    with pytest.raises(InputError, match=sentence):
        files.listing(path)


@pytest.mark.parametrize("name", ["pool.tar.gz", "pool.rar", "pool.png"])
def test_another_file_is_one_sentence(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"Rar!\x1a\x07")
    with pytest.raises(InputError, match="neither a folder nor a zip archive nor a Parquet table"):
        files.listing(path)


def test_archives_in_a_folder_are_told(tmp_path: Path) -> None:
    for name in ("benign.zip", "malignant.tar.gz"):
        (tmp_path / name).write_bytes(b"PK\3\4")
    with pytest.raises(InputError, match="has 0; .*left out: 2 archive, such as 'benign.zip'"):
        pool(tmp_path, tmp_path / "pool")


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    path = zipped(tmp_path / "bomb.zip", {"benign/1.png": bytes(150_000_000)})
    child = os.fork()
    if child == 0:
        limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + 60_000_000
        files.listing(path)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        os._exit(0 if peak < limit else 1)
    assert os.waitpid(child, 0)[1] == 0
