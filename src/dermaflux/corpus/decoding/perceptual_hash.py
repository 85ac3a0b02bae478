"""The 64-bit perceptual hash of an image, the table's column `phash`. Pure, no files.

It describes the image in its own orientation, and serves people who look up a single image.
Finding all copies within a corpus takes more: see `signatures`.
"""

from __future__ import annotations

from functools import cache
from math import cos, pi
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dermaflux.core.arrays import Array

BITS = 64


@cache
def _cosines() -> Array:
    """Integer DCT-II matrix (16, 32): exact sums, so that a hash is the same on every machine."""
    import numpy as np

    rows = [[round(8192 * cos(pi * (2 * x + 1) * u / 64)) for x in range(32)] for u in range(16)]
    return np.array(rows, dtype=np.int64)


@cache
def _lowest() -> tuple[list[int], list[int]]:
    """Rows and columns of the 64 lowest frequencies of a 2-D DCT without its mean."""
    order = sorted((u + v, u, v) for u in range(16) for v in range(16))[1 : BITS + 1]
    return [u for _, u, _ in order], [v for _, _, v in order]


def perceptual_hash(thumbnail: Array) -> int:
    """64-bit hash of a grey uint8 (64, 64) thumbnail: signs of its 64 lowest DCT coefficients.

    The DCT hash of Zauner 2010 ("Implementation and benchmarking of perceptual image hash
    functions"), with the sign in place of the median, which for AC coefficients is near 0 anyway.
    An image without structure has hash 0.
    """
    import numpy as np

    half = thumbnail.astype(np.int64).reshape(32, 2, 32, 2).sum(axis=(1, 3))
    matrix = _cosines()
    coefficients = matrix @ half @ matrix.T
    bits = coefficients[_lowest()] > 0
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
