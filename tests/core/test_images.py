"""Image bytes of unknown origin: what a viewer would show, or one sentence, in limited time."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from layouts import jpeg, png_claiming, random_image
from PIL import Image, UnidentifiedImageError

from dermaflux.core.images import (
    ImageError,
    Limits,
    decode_image,
    encode_png,
    upright,
    upright_rgb,
)
from dermaflux.core.images.jpeg_scans import scan_count

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def refusal(content: bytes) -> ImageError:
    with pytest.raises(ImageError) as raised:
        upright(content)
    return raised.value


def test_every_mode_becomes_the_same_rgb() -> None:
    rgb = random_image(13)
    grey = rgb.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    clear = rgb.convert("RGBA")
    clear.putalpha(0)
    holed = np.asarray(rgb).copy()
    holed[:20], holed[20:40] = (1, 2, 3), (255, 255, 255)
    white = np.where((holed == (1, 2, 3)).all(axis=2, keepdims=True), 255, holed)
    dark = np.where(np.asarray(grey) < 100, 257, np.asarray(grey).astype(np.uint16) * 257)
    cases = [
        (encoded(grey, "PNG"), grey),
        (encoded(deep, "PNG"), grey),
        (encoded(rgb.convert("RGBA"), "PNG"), rgb),
        (encoded(clear, "PNG"), Image.new("RGB", rgb.size, "white")),
        (encoded(rgb.quantize(256), "PNG"), rgb.quantize(256).convert("RGB")),
        (encoded(grey.convert("1"), "PNG"), grey.convert("1")),
        (encoded(rgb.convert("CMYK"), "JPEG", quality=98), rgb),
        (encoded(grey, "JPEG", quality=98), grey),
        (encoded(rgb.convert("LA"), "PNG"), grey),
        (encoded(Image.fromarray(holed), "PNG", transparency=(1, 2, 3)), Image.fromarray(white)),
        (
            encoded(Image.fromarray(dark.astype(np.uint16)), "PNG", transparency=257),
            grey.point(lambda level: 255 if level < 100 else level),
        ),
    ]
    for content, reference in cases:
        converted = upright_rgb(Image.open(io.BytesIO(content)))
        expected = np.asarray(reference.convert("RGB"), float)
        assert converted.mode == "RGB"
        assert np.abs(np.asarray(converted, float) - expected).mean() < 2
        assert upright(content).image.tobytes() == converted.tobytes()


def test_only_untouched_pixels_count_as_stored() -> None:
    image, turned = random_image(14, 300, 200), Image.Exif()
    turned[0x0112] = 6  # turned a quarter clockwise by the viewer
    stored = upright(encoded(image, "PNG"))
    assert (stored.format, stored.as_stored) == ("PNG", True)
    assert stored.image.tobytes() == image.tobytes()
    sideways = upright(encoded(image, "JPEG", quality=97, exif=turned))
    assert (sideways.format, sideways.as_stored, sideways.image.size) == ("JPEG", False, (200, 300))
    expected = np.asarray(image.rotate(-90, expand=True), float)
    assert np.abs(np.asarray(sideways.image, float) - expected).mean() < 3
    assert not upright(encoded(image.convert("L"), "PNG")).as_stored
    assert not upright(encoded(image, "PNG", transparency=(1, 2, 3))).as_stored


def test_unusable_bytes_say_which_rule_they_break() -> None:
    whole = jpeg(random_image(15))
    assert refusal(b"").rule == refusal(b"404").rule == refusal(whole[:-400]).rule == "damaged"
    assert refusal(png_claiming(10_001, 10_001)).rule == "too-large"  # just above 100 megapixels
    assert refusal(png_claiming(20_000, 20_000)).rule == "too-large"  # Pillow's own limit


def many_scans(side: int, scans: int, progressive: bool = True) -> bytes:
    """A JPEG whose last scan is repeated: little to read, very much to decode."""
    options = {"progressive": True} if progressive else {"restart_marker_rows": 0}
    content = encoded(Image.new("RGB", (side, side), "tan"), "JPEG", **options)
    start = content.rindex(b"\xff\xda")
    scan = content[start:-2]
    if not progressive:  # three components in the frame, but one in each scan
        scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + bytes(side * side // 64)
    return content[:start] + scan * scans + b"\xff\xd9"


@pytest.mark.parametrize(("side", "scans"), [(8000, 3000), (8000, 95), (64, 101)])
@pytest.mark.parametrize("progressive", [True, False])
def test_a_jpeg_of_many_scans_is_refused_from_its_markers(
    side: int, scans: int, progressive: bool
) -> None:
    content = many_scans(side, scans if progressive else min(scans, 120), progressive)
    start = time.monotonic()
    assert "scans" in refusal(content).reason
    assert time.monotonic() - start < 1


def test_scans_of_other_pictures_in_the_file_do_not_count() -> None:
    image = random_image(7)
    picture = encoded(image, "JPEG", progressive=True)
    assert 5 < scan_count(picture, 100) < 20
    assert scan_count(picture + picture * 50, 100) == scan_count(picture, 100)
    baseline = encoded(image, "JPEG", exif=b"Exif\0\0" + b"\xff\xda\x00\x02" * 500)
    assert scan_count(baseline + picture * 50, 100) == 1
    whole = encoded(image, "JPEG")
    scan = whole[whole.rindex(b"\xff\xda") : -2]  # decoders stop after the first that is complete
    assert scan_count(whole[:-2] + scan * 200 + b"\xff\xd9", 100) == 1
    assert upright(picture + picture * 50).image.tobytes() == upright(picture).image.tobytes()
    assert scan_count(baseline[:2] + b"\xff\xfe\x00\x02" * 20_000 + baseline[2:], 100) == 101


def test_no_file_takes_longer_than_its_time() -> None:
    content = jpeg(random_image(714))
    for limits in (Limits(10**6, -1.0), Limits(10**6, 60.0, end=time.monotonic() - 1)):
        with pytest.raises(ImageError, match="decoding takes more than .* s, the limit"):
            upright(content, limits)
    with pytest.raises(ImageError, match=r"64 x 64 is above the limit of 0\.004 megapixels"):
        upright(encoded(Image.new("RGB", (64, 64)), "PNG"), Limits(4000, 60.0))


def chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def png_with(*extra: bytes) -> bytes:
    """A PNG with more chunks after its header."""
    whole = encode_png(PIXELS)
    return whole[:33] + b"".join(extra) + whole[33:]


BOMB = zlib.compress(bytes(50_000_000))


@pytest.mark.parametrize(
    "content",
    [
        png_claiming(65_535, 65_535),
        png_claiming(2**31 - 1, 1),
        png_with(chunk(b"zTXt", b"k\0\0" + BOMB)),
        png_with(chunk(b"iTXt", b"k\0\1\0\0\0" + BOMB)),
        png_with(chunk(b"iCCP", b"k\0\0" + BOMB)),
        b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03" + bytes(20),
    ],
    ids=["size", "width", "zTXt", "iTXt", "iCCP", "jpeg-size"],
)
def test_a_bomb_is_refused_before_it_unfolds(content: bytes) -> None:
    tracemalloc.start()
    assert refusal(content).rule in ("too-large", "damaged")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6


def test_png_keeps_every_pixel_and_equal_pixels_have_equal_bytes() -> None:
    encoded = encode_png(PIXELS)
    assert encoded[:8] == b"\x89PNG\r\n\x1a\n"
    assert np.array_equal(np.asarray(decode_image(encoded)), PIXELS)
    assert encode_png(PIXELS.copy(order="F")) == encoded


def test_a_table_image_of_every_mode_becomes_rgb() -> None:
    grey = Image.fromarray(PIXELS[..., 0])
    for image in (grey, grey.convert("P"), Image.fromarray(PIXELS).convert("RGBA")):
        decoded = decode_image(encoded(image, "PNG"))
        assert decoded.mode == "RGB"
        assert np.array_equal(np.asarray(decoded), np.asarray(image.convert("RGB")))


def test_damaged_bytes_raise_what_pillow_raises() -> None:
    whole = encode_png(np.zeros((64, 64, 3), dtype=np.uint8))
    with pytest.raises(OSError, match="truncated"):
        decode_image(whole[: len(whole) // 2])
    with pytest.raises(UnidentifiedImageError):
        decode_image(b"no image")
