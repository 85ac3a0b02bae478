"""Encoded image bytes to pixels and back."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

    from dermaflux.core.arrays import Pixels


def decode_image(encoded: bytes) -> Image.Image:
    """A PIL image in RGB. Raises what Pillow raises when the bytes are damaged."""
    from PIL import Image

    return Image.open(io.BytesIO(encoded)).convert("RGB")


def encode_png(pixels: Pixels) -> bytes:
    """PNG of uint8 (H, W, 3); equal pixels have equal bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
