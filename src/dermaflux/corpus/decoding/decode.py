"""One image file -> the image the corpus keeps, its hashes, or the reason it cannot be kept.

Reads image files; writes nothing. A pure function of the file's bytes and `Rule`, run in worker
processes, so it imports Pillow and numpy only (h5py for members of an HDF5 file). Every image is
decoded, however small: policies decide later which stay.
"""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dermaflux.core.hashing import sha256
from dermaflux.core.images import (
    ImageError,
    decoding,
    load,
    open_image,
    orientation,
    square,
    upright_rgb,
)
from dermaflux.corpus.decoding import skin_tone
from dermaflux.corpus.decoding.perceptual_hash import perceptual_hash
from dermaflux.corpus.duplicates.signatures import SIDE
from dermaflux.sources.adapter import Problem
from dermaflux.sources.reading.hdf5 import read_member

if TYPE_CHECKING:
    from PIL import Image

SCALES = (512, 256, 128)
# JPEG is decoded at no less than this many times the largest scale. Against decoding in full, 12
# megapixels reduced this way differ by 52 dB PSNR, far below what JPEG at quality 95 takes away.
_GAP = 1.4

Task = tuple[str, str | None, "Rule"]
"""Path of a file, key of the image in it when it is an HDF5 file, and the rule to decode it by."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How images become corpus images."""

    scale: int | None
    """Scale of every image in pixels; None takes the largest of `SCALES` that fits."""
    quality: int
    """JPEG quality."""


@dataclass(frozen=True, slots=True)
class CorpusImage:
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
    """Grey, uint8 (64, 64), of the whole image, its aspect squashed."""
    skin_tone: str | None
    """Measured on the whole image, see `skin_tone`; None where it shows no clear skin."""


def bucket(shorter: int) -> int:
    """Largest scale that needs no enlarging; the smallest scale below that."""
    return next((scale for scale in SCALES if scale <= shorter), SCALES[-1])


def decode(content: bytes, rule: Rule) -> CorpusImage | Problem:
    """Decode the bytes of one file; a `Problem` when they are damaged or too large."""
    try:
        with decoding():
            return _corpus_image(open_image(content), rule)
    except ImageError as error:
        return Problem(error.rule, error.reason)


def _corpus_image(image: Image.Image, rule: Rule) -> CorpusImage:
    import numpy as np
    from PIL import Image

    shorter = min(image.size)
    scale = rule.scale or bucket(shorter)
    width, height = image.size
    # For the largest scale, whatever the rule: hash and thumbnail are the same under every policy.
    factor = _GAP * SCALES[0] / shorter
    image.draft(None, (int(width * factor), int(height * factor)))
    load(image)
    turned = orientation(image) >= 5
    rgb = upright_rgb(image)
    out = io.BytesIO()
    square(rgb, scale).save(out, "JPEG", quality=rule.quality, subsampling=0)
    encoded = out.getvalue()
    # Box averaging first takes a third of the time and moves grey levels by 0.4 on average.
    grey = rgb.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=1.5)
    thumbnail = np.asarray(grey)
    return CorpusImage(
        encoded=encoded,
        width=height if turned else width,
        height=width if turned else height,
        scale=scale,
        sha256=sha256(encoded),
        phash=perceptual_hash(thumbnail),
        thumbnail=thumbnail.tobytes(),
        skin_tone=skin_tone.measured(np.asarray(rgb)),
    )


def decode_file(path: str, member: str | None, rule: Rule) -> CorpusImage | Problem:
    """`decode` of a file, or of the `member` of an HDF5 file, that may not be readable."""
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


def decode_files(tasks: list[Task]) -> list[CorpusImage | Problem]:
    """`decode_file` of several, the unit of work of one process."""
    return [decode_file(*task) for task in tasks]
