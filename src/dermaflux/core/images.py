"""Image bytes to pixels and back: files of strangers through limits, our own tables without.

Pure; imports Pillow when a function is called. `upright` is for bytes that anyone may have written,
`decode_image` for the bytes of a table, which a stage of ours encoded.
"""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

    from dermaflux.core.arrays import Pixels

MAXIMUM_PIXELS = 100_000_000
"""Larger images are refused from their header; the largest published ones have 36 megapixels."""
_FORMATS = ("JPEG", "PNG")  # what the datasets publish; other decoders stay out of reach
_OTHER_FORMATS = (
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"RIFF", "WebP"),
    (b"BM", "BMP"),
)
_ORIENTATION = 0x0112  # EXIF tag
_MAXIMUM_SCANS = 100  # progressive encoders write about ten; each costs a pass over all pixels
_SECONDS = 60.0  # for one file; 100 megapixels take about two


class ImageError(Exception):
    """Why the bytes of a file are no usable image."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(rule, reason)
        self.rule = rule
        """`damaged`, `format` or `too-large`."""
        self.reason = reason
        """One sentence with the limit and the fix."""


@dataclass(frozen=True, slots=True)
class UprightImage:
    """A whole image as a viewer shows it."""

    image: Image.Image
    """RGB."""
    format: str
    """JPEG or PNG."""
    as_stored: bool
    """Whether the file's own pixels are these: RGB already, and not turned."""


def upright(content: bytes) -> UprightImage:
    """Decode the bytes of one file in full; raise `ImageError` when damaged or too large."""
    with decoding():
        image = open_image(content)
        load(image)
        as_stored = image.mode == "RGB" and orientation(image) == 1
        return UprightImage(upright_rgb(image), str(image.format), as_stored)


@contextmanager
def decoding() -> Iterator[None]:
    """Turn whatever decoders raise on hostile bytes into `ImageError`; ignore their warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything
        detail = " ".join(str(error).split()) or type(error).__name__
        reason = f"the image does not decode ({detail}); download it again"
        raise ImageError("damaged", reason) from None


class _TimeLimited(io.BytesIO):
    """Bytes that cannot be read once their time is over, in whatever thread."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._end = time.monotonic() + _SECONDS

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self._end:
            raise TimeoutError(f"more than {_SECONDS:g} s")
        return super().read(size)


def open_image(content: bytes) -> Image.Image:
    """An image whose header is read and within the limits; no pixel is decoded yet."""
    from PIL import Image, UnidentifiedImageError

    if not content:
        raise ImageError("damaged", "the file is empty; download it again")
    for magic, name in _OTHER_FORMATS:
        if content.startswith(magic):
            raise ImageError("format", f"the file is {name}; convert it to JPEG or PNG")
    try:
        image = Image.open(_TimeLimited(content), formats=_FORMATS)
    except UnidentifiedImageError:
        reason = "the file is neither JPEG nor PNG; convert or replace it"
        raise ImageError("damaged", reason) from None
    except Image.DecompressionBombError:
        raise _too_large("the image") from None
    if image.width * image.height > MAXIMUM_PIXELS:
        raise _too_large(f"{image.width} x {image.height}")
    # Only progressive scans can be much shorter than what they make the decoder do.
    if "progressive" in image.info and content.count(b"\xff\xda") > _MAXIMUM_SCANS:
        reason = f"the JPEG has more than {_MAXIMUM_SCANS} scans; save it again"
        raise ImageError("damaged", reason)
    return image


def _too_large(size: str) -> ImageError:
    limit = MAXIMUM_PIXELS // 10**6
    reason = f"{size} is above the limit of {limit} megapixels; store it at a smaller size"
    return ImageError("too-large", reason)


def load(image: Image.Image) -> None:
    """Decode the pixels of an open image; a file that was cut short is an error."""
    from PIL import ImageFile

    ImageFile.LOAD_TRUNCATED_IMAGES = False  # another library may have allowed half images
    image.load()


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8: 1 is upright, 5 and above swap width and height."""
    value: int = image.getexif().get(_ORIENTATION, 1)
    return value


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image as a viewer shows it: EXIF orientation applied, transparency over white, RGB.

    16-bit grey keeps its high byte; CMYK is converted as Pillow does, without colour profiles.
    """
    from PIL import Image, ImageOps

    if orientation(image) != 1:  # otherwise `exif_transpose` would copy the image
        image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


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

    return Image.open(io.BytesIO(encoded)).convert("RGB")


def encode_png(pixels: Pixels) -> bytes:
    """PNG of uint8 (H, W, 3); equal pixels have equal bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
