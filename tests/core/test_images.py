"""Strangers' image bytes: what a viewer would show, or one sentence, within the time allowed."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from layouts import jpeg, picture, png_claiming
from PIL import Image

from dermaflux.core import images
from dermaflux.core.images import ImageError, upright, upright_rgb


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def refusal(content: bytes) -> ImageError:
    with pytest.raises(ImageError) as raised:
        upright(content)
    return raised.value


def test_every_mode_becomes_the_same_rgb() -> None:
    rgb = picture(13)
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
    image, turned = picture(14, 300, 200), Image.Exif()
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
    whole = jpeg(picture(15))
    assert refusal(b"").rule == refusal(b"404").rule == refusal(whole[:-400]).rule == "damaged"
    assert refusal(png_claiming(10_001, 10_001)).rule == "too-large"  # just above 100 megapixels
    assert refusal(png_claiming(20_000, 20_000)).rule == "too-large"  # Pillow's own limit
    tiff = refusal(encoded(picture(15), "TIFF"))
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
    assert "more than" in refusal(jpeg(picture(714))).reason
    assert time.monotonic() - start < 5
