"""Encoded images against Pillow's own files."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from dermaflux.core.images import decode_image, encode_png

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def file_of(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_png_keeps_every_pixel_and_equal_pixels_have_equal_bytes() -> None:
    encoded = encode_png(PIXELS)
    assert encoded[:8] == b"\x89PNG\r\n\x1a\n"
    assert np.array_equal(np.asarray(decode_image(encoded)), PIXELS)
    assert encode_png(PIXELS.copy(order="F")) == encoded


def test_every_mode_becomes_rgb() -> None:
    grey = Image.fromarray(PIXELS[..., 0])
    for image in (grey, grey.convert("P"), Image.fromarray(PIXELS).convert("RGBA")):
        decoded = decode_image(file_of(image, "PNG"))
        assert decoded.mode == "RGB"
        assert np.array_equal(np.asarray(decoded), np.asarray(image.convert("RGB")))


def test_damaged_bytes_raise_what_pillow_raises() -> None:
    whole = encode_png(np.zeros((64, 64, 3), dtype=np.uint8))
    with pytest.raises(OSError, match="truncated"):
        decode_image(whole[: len(whole) // 2])
    with pytest.raises(UnidentifiedImageError):
        decode_image(b"no image")
