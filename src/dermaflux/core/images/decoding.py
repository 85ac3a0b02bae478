"""Bytes of unknown origin to an upright image: formats, size, work and time are limited."""

from __future__ import annotations

import io
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dermaflux.core.images import formats, pixels
from dermaflux.core.images.formats import ImageError
from dermaflux.core.images.jpeg_scans import scan_count
from dermaflux.errors import quoted

if TYPE_CHECKING:
    from PIL import Image, ImageFile

_MAXIMUM_SCANS = 100  # progressive encoders write about ten
_MAXIMUM_SCANNED = 3e9  # scans times pixels: each scan costs a pass of about 1 ns per pixel
_MAXIMUM_DETAIL = 150  # characters of what a decoder says


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost."""

    pixels: int
    """Larger images are refused from their header."""
    seconds: float
    """After this time no more bytes of the file are read."""
    end: float = math.inf
    """Nor after this moment of the monotonic clock, where many files share one limit."""


LARGEST = Limits(100_000_000, 60.0)
"""For files that a person has put there: the largest published images have 36 megapixels, and 100
take about two seconds."""


@dataclass(frozen=True, slots=True)
class UprightImage:
    """A whole image as a viewer shows it."""

    image: Image.Image
    """RGB."""
    format: str
    """JPEG or PNG."""
    as_stored: bool
    """Whether the file's own pixels are these: RGB already, opaque and not turned."""


def upright(content: bytes, limits: Limits = LARGEST) -> UprightImage:
    """Decode the bytes of one file in full; raise `ImageError` when damaged or too large.

    Of several pictures in one file (MPO, animated PNG) it is the first.
    """
    with decoding():
        image = open_image(content, limits)
        load(image)
        untouched = image.mode == "RGB" and not pixels.is_transparent(image)
        as_stored = untouched and pixels.orientation(image) == 1
        return UprightImage(pixels.upright_rgb(image), str(image.format), as_stored)


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
        if not detail.isprintable() or len(detail) > _MAXIMUM_DETAIL:
            detail = quoted(detail[:_MAXIMUM_DETAIL])
        reason = f"the image does not decode ({detail}); download it again"
        raise ImageError("damaged", reason) from None


class _TimeLimited(io.BytesIO):
    """Bytes that can no longer be read once their time is up; works in any thread."""

    def __init__(self, content: bytes, limits: Limits) -> None:
        super().__init__(content)
        self._seconds = limits.seconds
        self._end = min(time.monotonic() + limits.seconds, limits.end)

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self._end:
            reason = f"decoding takes more than {self._seconds:g} s, the limit; make it smaller"
            raise ImageError("too-large", reason)
        return super().read(size)


def open_image(content: bytes, limits: Limits = LARGEST) -> ImageFile.ImageFile:
    """An image whose header is read and within the limits; no pixel is decoded yet."""
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    # The class of the one format: `Image.open` would try others, and open MPO as another class.
    kind = formats.kind(content)
    scans = scan_count(content, _MAXIMUM_SCANS) if kind == "JPEG" else 1
    if scans > _MAXIMUM_SCANS:
        reason = f"the JPEG has more than {_MAXIMUM_SCANS} scans; save it again"
        raise ImageError("damaged", reason)
    opened = JpegImageFile if kind == "JPEG" else PngImageFile
    image = opened(_TimeLimited(content, limits))
    size = image.width * image.height
    if size > limits.pixels:
        reason = (
            f"{image.width} x {image.height} is above the limit of {limits.pixels / 1e6:g} "
            "megapixels; store it at a smaller size"
        )
        raise ImageError("too-large", reason)
    if scans * size > _MAXIMUM_SCANNED:
        most = int(_MAXIMUM_SCANNED / size)
        reason = (
            f"the JPEG of {image.width} x {image.height} has {scans} scans where {most} are the "
            "limit at this size; save it again"
        )
        raise ImageError("damaged", reason)
    return image


def load(image: Image.Image) -> None:
    """Decode the pixels of an open image; a file that was cut short is an error."""
    from PIL import ImageFile

    ImageFile.LOAD_TRUNCATED_IMAGES = False  # another library may have allowed half images
    image.load()
