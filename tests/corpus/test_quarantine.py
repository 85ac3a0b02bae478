"""What a download can contain that is not a plain image: kept right, or left out with a reason."""

from __future__ import annotations

import errno
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ingested import quarantined, settings
from layouts import isic2020, jpeg, kaggle, random_image, save
from PIL import Image

from dermaflux import paths
from dermaflux.core import table
from dermaflux.corpus import ingest
from dermaflux.corpus.decoding import decode
from dermaflux.corpus.decoding.decode import CorpusImage, Rule
from dermaflux.errors import sentence_for
from dermaflux.sources.adapter import Problem
from dermaflux.sources.reading.files import walk_images
from dermaflux.sources.reading.tables import read_csv

RULE = Rule(None, 95)


@pytest.fixture
def folder(workspace: Path) -> Path:
    """A class folder of a small dataset, to put odd files into."""
    kaggle(workspace / "kaggle2", 3, True, 100)
    isic2020(workspace / "isic2020", {f"ISIC_{n}": (f"IP_{n}", n % 2) for n in range(3)})
    return workspace / "kaggle2/train/Benign"


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_odd_images_are_kept_and_unusable_ones_say_what_to_do(folder: Path) -> None:
    image = random_image(700)
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[0x0112] = 6
    kept = {
        "png-called.jpg": encoded(image, "PNG"),
        "jpeg-called.png": encoded(random_image(701), "JPEG"),
        "cmyk.jpg": encoded(random_image(702).convert("CMYK"), "JPEG"),
        "deep.png": encoded(deep, "PNG"),
        "palette.png": encoded(random_image(703).quantize(64), "PNG"),
        "turned.jpg": encoded(random_image(704), "JPEG", exif=turned),
    }
    frames = [random_image(n).quantize(64) for n in (705, 706)]
    lost = {
        "animated.gif": ("format", encoded(frames[0], "GIF", save_all=True, append_images=frames)),
        "gif-called.jpg": ("format", encoded(frames[0], "GIF")),
        "scan.tiff": ("format", encoded(image, "TIFF")),
        "web.webp": ("format", encoded(image, "WEBP")),
        "bitmap.bmp": ("format", encoded(image, "BMP")),
    }
    for name, content in kept.items():
        (folder / name).write_bytes(content)
    for name, (_, content) in lost.items():
        (folder / name).write_bytes(content)
    outside = save(random_image(707), folder.parents[3] / "elsewhere.jpg")
    (folder / "link-out.jpg").symlink_to(outside)
    inside = save(random_image(708), folder.parent / "Malignant/real.jpg")
    (folder / "link-in.jpg").symlink_to(inside)
    cached = save(random_image(709), folder.parents[3] / "cache/files/md5/ab/cdef.jpg")
    (folder / "dvc-link.jpg").symlink_to(cached)
    os.mkfifo(folder / "pipe.jpg")
    ingest.run(settings(duplicates="keep"))
    rows = table.metadata(paths.CORPUS).set_index("image_id")
    names = {Path(location).name: row for location, row in quarantined().items()}
    for name in (*kept, "link-in.jpg", "dvc-link.jpg"):
        assert f"kaggle2/train/Benign/{Path(name).stem}" in rows.index, name
    assert tuple(rows.loc["kaggle2/train/Benign/turned", ["width", "height"]]) == (140, 160)
    expected = {name: rule for name, (rule, _) in lost.items()}
    expected |= {"link-out.jpg": "outside-folder", "pipe.jpg": "unreadable"}
    assert {name: row["rule"] for name, row in names.items()} == expected
    assert "TIFF" in names["scan.tiff"]["reason"]
    assert not any(str(folder.parents[3]) in row["reason"] for row in names.values())


def test_a_file_without_permission_is_named(folder: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    path = save(random_image(710), folder / "locked.jpg")
    path.chmod(0)
    ingest.run(settings())
    assert quarantined()["kaggle2/train/Benign/locked.jpg"]["rule"] == "unreadable"


def test_a_folder_without_permission_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(path: str, real: Any = os.scandir) -> Any:  # root may list every folder
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    (tmp_path / "locked").mkdir()
    assert list(walk_images(tmp_path / "absent")) == []
    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(PermissionError) as caught:
        list(walk_images(tmp_path))
    assert "locked' cannot be used: this user may not read" in str(sentence_for(caught.value))


def test_names_that_are_no_text_are_left_out_by_their_bytes(folder: Path) -> None:
    save(random_image(713), folder / "7.jpg")
    (folder / "7.jpg").rename(os.fsdecode(bytes(folder) + b"/b\xf6se.jpg"))  # of a Latin-1 archive
    other = os.fsdecode(bytes(folder.parents[2]) + b"/and\xe8re/1.jpg")
    save(random_image(714), Path(other))
    ingest.run(settings())
    assert quarantined()["kaggle2/train/Benign/b\\udcf6se.jpg"]["rule"] == "file-name"
    assert list(json.loads(paths.INGEST_REPORT.read_text())["unread"]) == ["and\udce8re"]


def test_rows_and_images_without_each_other_and_names_used_twice(folder: Path) -> None:
    root = folder.parents[2] / "isic2020"
    truth = root / "ISIC_2020_Training_GroundTruth.csv"
    extra = "\nISIC_77,IP_9,male,45.0,torso,unknown,benign,0\n"
    truth.write_text(truth.read_text() + extra, encoding="utf-8-sig")  # with a byte order mark
    save(random_image(711), root / "train/ISIC_88.jpg")
    (root / "train/ISIC_1.png").write_bytes(encoded(random_image(712), "PNG"))  # other pixels
    ingest.run(settings())
    rules = {location: row["rule"] for location, row in quarantined().items()}
    assert rules == {
        "isic2020/ISIC_2020_Training_GroundTruth.csv:5": "no-image",
        "isic2020/train/ISIC_88.jpg": "no-row",
        "isic2020/train/ISIC_1.png": "repeated-id",
    }
    assert "isic2020/ISIC_1" in set(table.metadata(paths.CORPUS)["image_id"])


def test_a_latin_1_table_is_read_as_it_is_meant(tmp_path: Path) -> None:
    path = tmp_path / "metadata.csv"
    path.write_bytes("image,place\na,Köln\n".encode("latin-1"))
    assert read_csv(path, ("image", "place"))[0].values == {"image": "a", "place": "Köln"}


def test_images_inside_an_hdf5_file(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="the extra hdf5 is not installed")
    path, content = tmp_path / "train-image.hdf5", jpeg(random_image(713))
    with h5py.File(path, "w") as file:
        file["ISIC_1"] = np.void(content)
        file["ISIC_2"] = np.bytes_(content)
    tasks = [(str(path), name, RULE) for name in ("ISIC_1", "ISIC_2", "ISIC_3")]
    first, second, absent = decode.decode_files(tasks)
    assert first == second == decode.decode(content, RULE)
    assert isinstance(absent, Problem)
    assert absent.rule == "unreadable"


def seeds() -> list[bytes]:
    """Small whole files of many kinds, for mutation."""
    image, exif = random_image(715, 96, 80), Image.Exif()
    exif[0x0112] = 6
    frames = [image.quantize(16), image.rotate(90).quantize(16)]
    return [
        encoded(image, "JPEG", exif=exif),
        encoded(image, "JPEG", progressive=True),
        encoded(image.convert("CMYK"), "JPEG"),
        encoded(image, "PNG"),
        encoded(image.quantize(32), "PNG", transparency=3),
        encoded(image.convert("L"), "PNG"),
        encoded(frames[0], "GIF", save_all=True, append_images=frames),
        encoded(image, "TIFF"),
        encoded(image, "TIFF", compression="tiff_lzw"),
        encoded(image, "WEBP"),
    ]


def mutated(number: int, whole: list[bytes]) -> bytes:
    """File `number` of a fixed sequence: flipped bytes, a cut, a splice, or all of them."""
    random = np.random.default_rng([716, number])
    content = bytearray(whole[random.integers(len(whole))])
    kind = random.integers(4)
    if kind in (0, 3):
        for index in random.integers(len(content), size=random.integers(1, 12)):
            content[index] = random.integers(256)
    if kind in (1, 3):
        del content[random.integers(len(content)) :]
    if kind == 2:
        other = whole[random.integers(len(whole))]
        content[random.integers(len(content)) :] = other[random.integers(len(other)) :]
    return bytes(content)


@pytest.mark.slow
def test_ten_thousand_mutated_files_lose_no_row(folder: Path) -> None:
    whole, count = seeds(), 10_000
    for number in range(count):
        (folder / f"{number:05d}.jpg").write_bytes(mutated(number, whole))
    os.environ.pop("LOKY_MAX_CPU_COUNT")
    begin = time.monotonic()
    ingest.run(settings(policy="as_published"))
    print(f"{count} mutated files in {time.monotonic() - begin:.1f} s")
    rows = table.metadata(paths.CORPUS)["image_id"]
    kept = {name for name in rows if name.removeprefix("kaggle2/train/Benign/").isdigit()}
    lost = {row["image_id"] for row in quarantined().values()}
    assert kept.isdisjoint(lost)
    assert kept | lost == {f"kaggle2/train/Benign/{number:05d}" for number in range(count)}
    assert len(lost) > count / 3
    assert kept
    assert isinstance(decode.decode(whole[0], RULE), CorpusImage)
