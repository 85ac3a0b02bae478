"""How a photograph is turned, and metadata of any kind that never costs the image."""

from __future__ import annotations

import io
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import random_image
from PIL import Image, ImageOps

from dermaflux.core.images import ImageError, upright
from dermaflux.corpus.decoding.decode import CorpusImage, Rule, decode

IMAGE = random_image(14, 48, 32)


def photograph(exif: bytes = b"", kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    IMAGE.save(out, kind, exif=exif)
    return out.getvalue()


def block(kind: int, count: int, value: bytes, order: str = "<", tag: int = 0x0112) -> bytes:
    """An EXIF block of one entry; values of more than 4 bytes follow it."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    field = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(f"{order}I", 26)
    entry = struct.pack(f"{order}HHI", tag, kind, count) + field
    return b"Exif\0\0" + start + struct.pack(f"{order}H", 1) + entry + bytes(4) + value


def turned_like(content: bytes) -> int:
    """The orientation under which the image came out."""
    decoded = np.asarray(upright(content).image)
    plain = Image.open(io.BytesIO(content)).convert("RGB")
    for value in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = value
        out = io.BytesIO()
        plain.save(out, "PNG", exif=exif)
        with Image.open(out) as image:
            if np.array_equal(np.asarray(ImageOps.exif_transpose(image)), decoded):
                return value
    raise AssertionError("turned in no known way")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("value", range(1, 9))
def test_every_orientation_is_turned_as_pillow_does(value: int, order: str, kind: str) -> None:
    content = photograph(block(3, 1, struct.pack(f"{order}H", value), order), kind)
    assert turned_like(content) == value
    corpus = decode(content, Rule(None, 95))
    assert isinstance(corpus, CorpusImage)
    assert (corpus.width, corpus.height) == ((32, 48) if value >= 5 else (48, 32))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
    ("exif", "value"),
    [
        (block(4, 1, struct.pack("<I", 6)), 6),  # a wider integer than the standard's
        (block(3, 1, struct.pack("<H", 0)), 1),
        (block(3, 1, struct.pack("<H", 9)), 1),
        (block(4, 1, b"\xff\xff\xff\xff"), 1),
        (block(9, 1, b"\xff\xff\xff\xff"), 1),
        (block(2, 2, b"6\0"), 1),
        (block(2, 20, b"Horizontal (normal)\0"), 1),
        (block(7, 4, b"\6\0\0\0"), 1),
        (block(3, 2, struct.pack("<HH", 6, 8)), 6),
        (block(3, 0, b""), 1),
        (block(3, 2**32 - 1, b"\6\0"), 1),
        (block(5, 1, struct.pack("<II", 6, 1)), 1),
        (block(5, 1, struct.pack("<II", 6, 0)), 1),
        (block(11, 1, struct.pack("<f", 6.0)), 1),
        (block(12, 1, struct.pack("<d", float("nan"))), 1),
        (block(99, 1, b"\6\0"), 1),
        (b"Exif\0\0", 1),
        (b"Exif\0\0II*\0\xff\xff\xff\xff", 1),
        (b"Exif\0\0no TIFF at all", 1),
        (block(3, 1, b"\6\0")[:-20], 1),
    ],
)
def test_a_strange_value_never_costs_the_image(exif: bytes, value: int) -> None:
    for kind in ("JPEG", "PNG"):
        content = photograph(exif, kind)
        assert turned_like(content) == value
        assert isinstance(decode(content, Rule(None, 95)), CorpusImage)


def test_xmp_counts_where_exif_says_nothing() -> None:
    out = io.BytesIO()
    IMAGE.save(out, "JPEG", xmp=b'<x tiff:Orientation="6"/>')
    assert upright(out.getvalue()).image.size == (32, 48)
    IMAGE.save(out := io.BytesIO(), "JPEG", xmp=b"tiff:Orientation>6<", exif=block(3, 1, b"\1\0"))
    assert upright(out.getvalue()).image.size == (48, 32)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 60), st.booleans())
def test_no_metadata_costs_the_image(noise: bytes, at: int, with_header: bool) -> None:
    good = block(3, 1, struct.pack("<H", 6))
    exif = good[:at] + noise if with_header else noise
    content = photograph(b"Exif\0\0" + exif)
    try:
        assert upright(content).image.size in ((48, 32), (32, 48))
    except ImageError as error:
        raise AssertionError(error.reason) from None


def test_entries_that_point_to_the_same_bytes_cost_nothing() -> None:
    """Copied as often as they are named, the 1 MB of this block would take 5 GB."""
    entries = b"".join(struct.pack("<HHII", 0x9000 + n, 7, 1_000_000, 0) for n in range(5000))
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", 5000) + entries + bytes(4 + 1_000_000)
    parts = [tiff[start : start + 65_000] for start in range(0, len(tiff), 65_000)]
    plain = photograph()
    segments = b"".join(
        b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part for part in parts
    )
    tracemalloc.start()
    assert upright(plain[:2] + segments + plain[2:]).image.size == (48, 32)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
