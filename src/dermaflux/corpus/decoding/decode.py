"""One image file -> the picture the corpus keeps, its hashes, or the reason it cannot be kept.

Reads image files; writes nothing. A pure function of the file's bytes and `Rule`, run in worker
processes, so it imports Pillow and numpy only (h5py where images lie in a container). Every image
is decoded, however small: policies decide later which stay.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dermaflux.corpus.decoding import skin_tone
from dermaflux.corpus.decoding.perceptual_hash import SIDE, perceptual_hash
from dermaflux.sources.adapter import Problem
from dermaflux.sources.reading.hdf5 import read_member

if TYPE_CHECKING:
    from PIL import Image

SCALES = (512, 256, 128)
MAXIMUM_PIXELS = 100_000_000
"""Larger images are refused from their header; the largest published ones have 36 megapixels."""
_FORMATS = ("JPEG", "PNG")  # what the datasets publish; other decoders stay out of reach
_OTHERS = (
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"RIFF", "WebP"),
    (b"BM", "BMP"),
)
# JPEG is decoded at no less than this many times the largest scale. Against decoding in full, 12
# megapixels reduced this way differ by 52 dB PSNR, far below what JPEG at quality 95 takes away.
_GAP = 1.4
_ORIENTATION = 0x0112  # EXIF tag
_MAXIMUM_SCANS = 100  # progressive encoders write about ten; each costs a pass over all pixels
_SECONDS = 60.0  # for one file; 100 megapixels take about two

Task = tuple[str, str | None, "Rule"]
"""Path of a file, key of the image in it when it is a container, and the rule to decode it by."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How images become corpus images."""

    scale: int | None
    """Scale of every image in pixels; None takes the largest of `SCALES` that fits."""
    quality: int
    """JPEG quality."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image, ready for the corpus."""

    encoded: bytes
    """JPEG, 4:4:4, scale x scale."""
    width: int
    height: int
    """Size in pixels as published, upright."""
    scale: int
    sha256: str
    """Of `encoded`: caches are keyed by what their makers saw."""
    phash: int
    thumbnail: bytes
    """Grey, uint8 (64, 64), of the whole picture, its aspect squashed."""
    skin_tone: str | None
    """Measured on the whole picture, see `skin_tone`; None where it shows no clear skin."""


def bucket(shorter: int) -> int:
    """Largest scale that needs no enlarging; the smallest scale below that."""
    return next((scale for scale in SCALES if scale <= shorter), SCALES[-1])


def upright_rgb(image: Image.Image) -> Image.Image:
    """The picture as a viewer shows it: EXIF orientation applied, transparency over white, RGB.

    16-bit grey keeps its high byte; CMYK is converted as Pillow does, without colour profiles.
    """
    from PIL import Image, ImageOps

    if image.getexif().get(_ORIENTATION, 1) != 1:  # else it would copy the picture
        image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def square(image: Image.Image, scale: int) -> Image.Image:
    """Resize the shorter side to `scale` with antialiasing, then crop the centre."""
    from PIL import Image

    if image.size == (scale, scale):
        return image
    width, height = image.size
    shorter = min(width, height)
    # Cropped in source coordinates: one resize, and equal to cropping after it but for rounding.
    left, top = (width - shorter) / 2, (height - shorter) / 2
    box = (left, top, left + shorter, top + shorter)
    return image.resize((scale, scale), Image.Resampling.LANCZOS, box=box)


class _Timed(io.BytesIO):
    """Bytes that cannot be read any more once their time is over, in whatever thread."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._end = time.monotonic() + _SECONDS

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self._end:
            raise TimeoutError(f"more than {_SECONDS:g} s")
        return super().read(size)


def _open(content: bytes) -> Image.Image | Problem:
    from PIL import Image, UnidentifiedImageError

    if not content:
        return Problem("damaged", "the file is empty; download it again")
    for magic, name in _OTHERS:
        if content.startswith(magic):
            return Problem("format", f"the file is {name}; convert it to JPEG or PNG")
    try:
        image = Image.open(_Timed(content), formats=_FORMATS)
    except UnidentifiedImageError:
        return Problem("damaged", "the file is neither JPEG nor PNG; convert or replace it")
    except Image.DecompressionBombError:
        return Problem("too-large", _too_large("the image"))
    if image.width * image.height > MAXIMUM_PIXELS:
        return Problem("too-large", _too_large(f"{image.width} x {image.height}"))
    # Only progressive scans can be much shorter than what they make the decoder do.
    if "progressive" in image.info and content.count(b"\xff\xda") > _MAXIMUM_SCANS:
        reason = f"the JPEG has more than {_MAXIMUM_SCANS} scans; save it again"
        return Problem("damaged", reason)
    return image


def _too_large(what: str) -> str:
    limit = MAXIMUM_PIXELS // 10**6
    return f"{what} is above the limit of {limit} megapixels; store it at a smaller size"


def decode(content: bytes, rule: Rule) -> Picture | Problem:
    """Decode the bytes of one file; a `Problem` when they are damaged or too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what can be wrong with a file is said by `Problem`
            image = _open(content)
            return image if isinstance(image, Problem) else _picture(image, rule)
    except Exception as error:  # decoders raise anything on hostile bytes, and no row may be lost
        return _damaged(error)


@dataclass(frozen=True, slots=True)
class Upright:
    """A whole picture as a viewer shows it."""

    image: Image.Image
    """RGB."""
    format: str
    """JPEG or PNG."""
    as_stored: bool
    """Whether the file's own pixels are these: RGB already, and not turned."""


def upright(content: bytes) -> Upright | Problem:
    """The picture in the bytes of one file, in full; a `Problem` when damaged or too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = _open(content)
            if isinstance(image, Problem):
                return image
            _load(image)
            stored = image.mode == "RGB" and image.getexif().get(_ORIENTATION, 1) == 1
            return Upright(upright_rgb(image), str(image.format), stored)
    except Exception as error:  # as in `decode`
        return _damaged(error)


def _damaged(error: Exception) -> Problem:
    detail = " ".join(str(error).split()) or type(error).__name__
    return Problem("damaged", f"the image does not decode ({detail}); download it again")


def _load(image: Image.Image) -> None:
    from PIL import ImageFile

    ImageFile.LOAD_TRUNCATED_IMAGES = False  # another library may have allowed half images
    image.load()


def _picture(image: Image.Image, rule: Rule) -> Picture | Problem:
    import numpy as np
    from PIL import Image

    shorter = min(image.size)
    scale = rule.scale or bucket(shorter)
    width, height = image.size
    # For the largest scale, whatever the rule: hash and thumbnail are the same under every policy.
    factor = _GAP * SCALES[0] / shorter
    image.draft(None, (int(width * factor), int(height * factor)))
    _load(image)
    turned = image.getexif().get(_ORIENTATION, 1) >= 5
    rgb = upright_rgb(image)
    out = io.BytesIO()
    square(rgb, scale).save(out, "JPEG", quality=rule.quality, subsampling=0)
    encoded = out.getvalue()
    # Box averaging first takes a third of the time and moves grey levels by 0.4 on average.
    grey = rgb.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=1.5)
    thumbnail = np.asarray(grey)
    return Picture(
        encoded=encoded,
        width=height if turned else width,
        height=width if turned else height,
        scale=scale,
        sha256=hashlib.sha256(encoded).hexdigest(),
        phash=perceptual_hash(thumbnail),
        thumbnail=thumbnail.tobytes(),
        skin_tone=skin_tone.measured(np.asarray(rgb)),
    )


def decode_file(path: str, member: str | None, rule: Rule) -> Picture | Problem:
    """`decode` of a file, or of the `member` of a container, that may not be readable."""
    try:
        if member is not None:
            content = read_member(Path(path), member)
        elif stat.S_ISREG(os.stat(path).st_mode):
            with open(path, "rb") as file:
                content = file.read()
        else:  # a named pipe would never end
            return Problem("unreadable", "it is not a file; replace it")
    except OSError as error:
        return Problem("unreadable", f"the file cannot be read ({error.strerror}); check it")
    return decode(content, rule)


def decode_files(tasks: list[Task]) -> list[Picture | Problem]:
    """`decode_file` of several, the unit of work of one process."""
    return [decode_file(*task) for task in tasks]
