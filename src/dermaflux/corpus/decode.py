"""One image file -> the picture the corpus keeps, its hashes, or the reason it cannot be kept.

Reads image files; writes nothing. A pure function of the file's bytes and `Rule`, run in worker
processes, so it imports Pillow and numpy only.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dermaflux.corpus.perceptual_hash import SIDE, perceptual_hash
from dermaflux.corpus.sources.adapter import Problem

if TYPE_CHECKING:
    from PIL import Image

SCALES = (512, 256, 128)
MAXIMUM_PIXELS = 100_000_000
"""Larger images are refused from their header; the largest published ones have 36 megapixels."""
_FORMATS = ("JPEG", "PNG")  # what the datasets publish; other decoders stay out of reach
_GAP = 2  # decode JPEG at no less than twice the size needed, as `Image.thumbnail` does


@dataclass(frozen=True, slots=True)
class Rule:
    """How images become corpus images."""

    minimum_side: int
    """Shorter side in pixels below which an image is refused."""
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


def bucket(shorter: int) -> int:
    """Largest scale that needs no enlarging; the smallest scale below that."""
    return next((scale for scale in SCALES if scale <= shorter), SCALES[-1])


def upright_rgb(image: Image.Image) -> Image.Image:
    """The picture as a viewer shows it: EXIF orientation applied, transparency over white, RGB.

    16-bit grey keeps its high byte; CMYK is converted as Pillow does, without colour profiles.
    """
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


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


def _open(content: bytes) -> Image.Image | Problem:
    from PIL import Image, UnidentifiedImageError

    if not content:
        return Problem("damaged", "the file is empty; download it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError:
        return Problem("damaged", "the file is neither JPEG nor PNG; convert or replace it")
    except Image.DecompressionBombError:
        return Problem("too-large", _too_large("the image"))
    if image.width * image.height > MAXIMUM_PIXELS:
        return Problem("too-large", _too_large(f"{image.width} x {image.height}"))
    return image


def _too_large(what: str) -> str:
    limit = MAXIMUM_PIXELS // 10**6
    return f"{what} is above the limit of {limit} megapixels; store it at a smaller size"


def decode(content: bytes, rule: Rule) -> Picture | Problem:
    """Decode the bytes of one file; a `Problem` when they are damaged, too small or too large."""
    try:
        image = _open(content)
        if isinstance(image, Problem):
            return image
        return _picture(image, rule)
    except Exception as error:  # decoders raise anything on hostile bytes, and no row may be lost
        detail = " ".join(str(error).split()) or type(error).__name__
        return Problem("damaged", f"the image does not decode ({detail}); download it again")


def _picture(image: Image.Image, rule: Rule) -> Picture | Problem:
    import numpy as np
    from PIL import Image, ImageFile

    shorter = min(image.size)
    if shorter < rule.minimum_side:
        reason = (
            f"{image.width} x {image.height} is below ingest.minimum_side {rule.minimum_side}; "
            "lower that parameter to keep it"
        )
        return Problem("too-small", reason)
    scale = rule.scale or bucket(shorter)
    width, height = image.size
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # another library may have allowed half images
    factor = _GAP * scale / shorter
    image.draft(None, (int(width * factor), int(height * factor)))
    image.load()
    turned = image.getexif().get(0x0112, 1) >= 5
    rgb = upright_rgb(image)
    out = io.BytesIO()
    square(rgb, scale).save(out, "JPEG", quality=rule.quality, subsampling=0)
    encoded = out.getvalue()
    grey = rgb.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    thumbnail = np.asarray(grey)
    return Picture(
        encoded=encoded,
        width=height if turned else width,
        height=width if turned else height,
        scale=scale,
        sha256=hashlib.sha256(encoded).hexdigest(),
        phash=perceptual_hash(thumbnail),
        thumbnail=thumbnail.tobytes(),
    )


def decode_file(path: Path, rule: Rule) -> Picture | Problem:
    """`decode` of a file that may not be readable."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return Problem("unreadable", f"the file cannot be read ({error.strerror}); check it")
    return decode(content, rule)


def decode_files(tasks: list[tuple[Path, Rule]]) -> list[Picture | Problem]:
    """`decode_file` of several, the unit of work of one process."""
    return [decode_file(path, rule) for path, rule in tasks]
