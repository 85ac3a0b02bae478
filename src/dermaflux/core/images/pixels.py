"""Pixels of opened images, and our own encoding of them. Pure, no limits."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

    from dermaflux.core.arrays import Pixels

_ORIENTATION = 0x0112  # EXIF tag
_DEEP_GREY = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8: 1 is upright, 5 and above swap width and height.

    1, too, where the metadata is damaged or the value is anything but one integer from 1 to 8, as
    web browsers read it.
    """
    try:
        value = image.getexif().get(_ORIENTATION)
    except Exception:  # parsers of damaged metadata raise anything
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turned(image: Image.Image) -> Image.Image:
    from PIL.Image import Transpose

    method = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation(image))
    # `ImageOps.exif_transpose` would write the metadata again, which fails on damaged ones.
    return image if method is None else image.transpose(method)


def is_transparent(image: Image.Image) -> bool:
    """Whether pixels may let the background through."""
    return image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image as a viewer shows it: EXIF orientation applied, transparency over white, RGB.

    16-bit grey keeps its high byte; CMYK is converted as Pillow does. Colour profiles are ignored.
    """
    from PIL import Image

    image = _turned(image)
    if image.mode in _DEEP_GREY:
        image = _high_byte(image)
    if is_transparent(image):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _high_byte(image: Image.Image) -> Image.Image:
    """8-bit grey of 16-bit grey; the one level that a PNG may call transparent becomes white."""
    import numpy as np
    from PIL import Image

    levels = np.asarray(image)
    grey = (levels // 256).clip(0, 255).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[levels == clear] = 255
    return Image.fromarray(grey)


def square(image: Image.Image, scale: int) -> Image.Image:
    """Resize the shorter side to `scale` pixels with antialiasing, then crop the centre."""
    from PIL import Image

    if image.size == (scale, scale):
        return image
    width, height = image.size
    shorter = min(width, height)
    # Cropped in source coordinates: one resize, and equal to cropping after it but for rounding.
    left, top = (width - shorter) / 2, (height - shorter) / 2
    box = (left, top, left + shorter, top + shorter)
    return image.resize((scale, scale), Image.Resampling.LANCZOS, box=box)


def decode_image(encoded: bytes) -> Image.Image:
    """A PIL image in RGB. Raises what Pillow raises when the bytes are damaged."""
    from PIL import Image

    return Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG")).convert("RGB")


def encode_png(pixels: Pixels) -> bytes:
    """PNG of uint8 (H, W, 3); equal pixels have equal bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
