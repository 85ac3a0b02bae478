"""Image bytes of unknown origin: what a viewer would show, or one sentence, in limited time."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from layouts import jpeg, png_claiming, random_image
from PIL import Image, UnidentifiedImageError

from dermaflux.core import images
from dermaflux.core.images import ImageError, decode_image, encode_png, upright, upright_rgb


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
    cases = [
        (encoded(grey, "PNG"), grey),
        (encoded(deep, "PNG"), grey),
        (encoded(rgb.convert("RGBA"), "PNG"), rgb),
        (encoded(clear, "PNG"), Image.new("RGB", rgb.size, "white")),
        (encoded(rgb.quantize(256), "PNG"), rgb.quantize(256).convert("RGB")),
        (encoded(grey.convert("1"), "PNG"), grey.convert("1")),
        (encoded(rgb.convert("CMYK"), "JPEG", quality=98), rgb),
        (encoded(grey, "JPEG", quality=98), grey),
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


def test_unusable_bytes_say_which_rule_they_break() -> None:
    whole = jpeg(random_image(15))
    assert refusal(b"").rule == refusal(b"404").rule == refusal(whole[:-400]).rule == "damaged"
    assert refusal(png_claiming(10_001, 10_001)).rule == "too-large"  # just above 100 megapixels
    assert refusal(png_claiming(20_000, 20_000)).rule == "too-large"  # Pillow's own limit
    tiff = refusal(encoded(random_image(15), "TIFF"))
    assert (tiff.rule, tiff.reason) == ("format", "the file is TIFF; convert it to JPEG or PNG")


def many_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: little to read, very much to decode."""
    content = encoded(Image.new("RGB", (side, side), "tan"), "JPEG", progressive=True)
    start = content.rindex(b"\xff\xda")
    return content[:start] + content[start:-2] * scans + b"\xff\xd9"


def test_no_file_takes_longer_than_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.monotonic()
    assert "scans" in refusal(many_scans(8000, 3000)).reason
    monkeypatch.setattr(images, "_SECONDS", -1.0)
    assert "more than" in refusal(jpeg(random_image(714))).reason
    assert time.monotonic() - start < 5


PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


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
