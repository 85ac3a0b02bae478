"""What an image is compared by: signs of middle frequencies, in every framing and orientation.

A copy may be turned, mirrored or cropped. Mirroring only changes signs of DCT coefficients and
turning transposes them, so every image is brought to one orientation that its coefficients decide;
where a decision is close, the image is looked up in both. Crops are matched by looking up each
image under 23 framings of itself; a crop between two framings flips few signs. Pure.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dermaflux.core.arrays import Array

SIDE = 64
"""Side in pixels of the grey thumbnails that are hashed and compared."""
FREQUENCIES = 24
_CUT = (0.025, 0.075)
# Shares cut off (left, right, top, bottom). A cut of up to 10 % on any side lies within 2.5 % of
# one of these, which flips 15 % of the signs (25 % in one copy of 30); uncut copies flip 3 %.
# Of a million pairs of other lesions one flips fewer than 22 % in its most similar framing.
# Cuts above 10 % are for lesions photographed again at up to 2.5 times the magnification.
WINDOWS: tuple[tuple[float, float, float, float], ...] = (
    (0.0, 0.0, 0.0, 0.0),
    (0.05, 0.05, 0.05, 0.05),
    (0.1, 0.1, 0.1, 0.1),
    (0.15, 0.15, 0.15, 0.15),
    (0.2, 0.2, 0.2, 0.2),
    (0.25, 0.25, 0.25, 0.25),
    (0.3, 0.3, 0.3, 0.3),
    *product(_CUT, _CUT, _CUT, _CUT),
)
_SIGN_BAND = (6, 26)  # u + v of the 345 signs that are compared: fine enough to tell blobs apart
_KEY_BAND = (2, 14)  # u + v of the signs that keys draw from: coarse enough to survive a crop
WORDS = 6  # uint64 of packed signs
SIGNS = 345
KEYS = 48
KEY_BITS = 22
_MARGIN = 0.15  # of the low frequencies' strength: a decision this close is made both ways
_LOW_BAND = (1, 4)
_PLAIN = 0.007  # strength of the compared band: 0.25 grey levels in the image
_ZERO = 1e-4  # of that strength: above rounding, so that cancelling sums have one sign everywhere


@dataclass(frozen=True, slots=True)
class Signatures:
    """Signatures of several images, one per framing and orientation looked up."""

    image: Array
    """int64 (N,): which image."""
    window: Array
    """uint8 (N,): its framing, an index of `WINDOWS`."""
    turn: Array
    """uint8 (N,): the orientation, see `turned`."""
    signs: Array
    """uint64 (N, WORDS): 345 signs, packed."""
    keys: Array
    """uint32 (N, KEYS): numbers of 22 bits; copies agree in at least one."""


def turned(images: Array, turn: int) -> Array:
    """Square images (N, S, S) in one of 8 orientations.

    Bit 0 of `turn` mirrors left and right, bit 1 top and bottom, then bit 2 transposes.
    """
    images = images[:, :: -1 if turn & 2 else 1, :: -1 if turn & 1 else 1]
    return images.swapaxes(1, 2) if turn & 4 else images


@cache
def _window_matrix(low: float, high: float) -> Array:
    """DCT of the part of a line left by cutting shares `low` and `high`: float32 (24, 64)."""
    import numpy as np

    edges = np.arange(SIDE + 1) / SIDE
    inside = (np.clip(edges, low, 1 - high) - low) / (1 - high - low)
    u = np.arange(1, FREQUENCIES)[:, None]
    waves = np.sin(np.pi * u * inside) / (np.pi * u)  # a wave's integral is 0 over the whole window
    matrix: Array = np.diff(np.concatenate([inside[None], waves]), axis=1).astype(np.float32)
    return matrix


@cache
def _band(low: int, high: int) -> Array:
    """Indices u * 24 + v of all frequencies with low <= u + v <= high."""
    import numpy as np

    index = np.arange(FREQUENCIES**2)
    order = index // FREQUENCIES + index % FREQUENCIES
    return np.nonzero((low <= order) & (order <= high))[0]


@cache
def _turning(turn: int) -> tuple[Array, Array]:
    """Where each DCT coefficient of a turned image comes from, and whether its sign changes."""
    import numpy as np

    index = np.arange(FREQUENCIES**2)
    u, v = index // FREQUENCIES, index % FREQUENCIES
    if turn & 4:
        u, v = v, u
    changes = ((v % 2 == 1) & bool(turn & 1)) ^ ((u % 2 == 1) & bool(turn & 2))
    return u * FREQUENCIES + v, changes


@cache
def _key_weights() -> Array:
    """float32 (signs of the key band, KEYS): each key reads 22 signs, drawn at random once."""
    import numpy as np

    draw = random.Random(0)  # nosec B311 # the same bands on every machine
    count = len(_band(*_KEY_BAND))
    weights = np.zeros((count, KEYS), dtype=np.float32)
    for key in range(KEYS):
        for bit, sign in enumerate(draw.sample(range(count), KEY_BITS)):
            weights[sign, key] = 1 << bit
    return weights


def _coefficients(thumbnails: Array, windows: Sequence[int]) -> Iterator[tuple[int, Array]]:
    """DCT (N, 576) of grey thumbnails uint8 (N, 64, 64), window by window."""
    import numpy as np

    count = len(thumbnails)
    chosen = [WINDOWS[index] for index in windows]
    vertical = sorted({(top, bottom) for _, _, top, bottom in chosen})
    pixels = thumbnails.astype(np.float32)
    rows = {cut: (_window_matrix(*cut) @ pixels).reshape(-1, SIDE) for cut in vertical}
    for index, (left, right, top, bottom) in zip(windows, chosen, strict=True):
        part = rows[top, bottom] @ _window_matrix(left, right).T
        yield index, part.reshape(count, FREQUENCIES**2)


def _decisions(coefficients: Array) -> tuple[Array, Array]:
    """What decides the orientation, (3, N) in bits of `turned`, and how strong it should be (N,).

    First differences from left to right and top to bottom, weighted to the middle of the image,
    where crops change little; and whether the image varies more along rows than along columns.
    """
    import numpy as np

    c = coefficients.T.reshape(FREQUENCIES, FREQUENCIES, -1)
    decisive = [c[0, 1] - c[2, 1], c[1, 0] - c[1, 2], c[0, 2] - c[2, 0]]
    return np.stack(decisive), _strength(coefficients, _LOW_BAND)


def _strength(coefficients: Array, band: tuple[int, int]) -> Array:
    """Root mean square of the coefficients of a band, in grey levels: (N,)."""
    import numpy as np

    chosen = coefficients[:, _band(*band)]
    strength: Array = np.sqrt(np.einsum("ij,ij->i", chosen, chosen) / chosen.shape[1])
    return strength


def signatures(
    thumbnails: Array, first: int, every_framing: bool, every_turn: bool | None = None
) -> Signatures:
    """Signatures of grey thumbnails uint8 (N, 64, 64), images `first` to `first + N - 1`.

    One for each image, in its own orientation, or, with `every_framing`, each one that a copy
    could have. `every_turn` says the same of orientations alone, and is `every_framing` unless
    given. Images too plain to be compared have none.
    """
    import numpy as np

    parts = []
    margin = _MARGIN if (every_framing if every_turn is None else every_turn) else 0.0
    for window, c in _coefficients(thumbnails, range(len(WINDOWS) if every_framing else 1)):
        decisive, low = _decisions(c)
        compared = _strength(c, _SIGN_BAND)
        near = np.abs(decisive) < margin * low
        positive = c > _ZERO * compared[:, None]
        for turn in range(8):
            wanted = np.array([turn & 1, turn & 2, turn & 4])[:, None] > 0
            fits = ((decisive < 0) == wanted) | near
            chosen = np.nonzero(fits.all(axis=0) & (compared >= _PLAIN))[0]
            parts.append((chosen + first, *_described(positive[chosen], window, turn)))
    return Signatures(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _described(positive: Array, window: int, turn: int) -> tuple[Array, Array, Array, Array]:
    """Window, turn, packed signs and keys of images whose DCT is positive where `positive` is."""
    import numpy as np

    count = len(positive)
    origin, changes = _turning(turn)
    band, key_band = _band(*_SIGN_BAND), _band(*_KEY_BAND)
    signs = np.zeros((count, WORDS * 64), dtype=bool)
    signs[:, :SIGNS] = positive[:, origin[band]] ^ changes[band]
    bits = (positive[:, origin[key_band]] ^ changes[key_band]).astype(np.float32)
    return (
        np.full(count, window, dtype=np.uint8),
        np.full(count, turn, dtype=np.uint8),
        np.packbits(signs, axis=1).view(np.uint64),
        (bits @ _key_weights()).astype(np.uint32),
    )


@cache
def _enlarging(low: float, high: float) -> Array:
    """Linear interpolation of the part between two cuts to the full side: float32 (64, 64)."""
    import numpy as np

    at = (low + (np.arange(SIDE) + 0.5) / SIDE * (1 - high - low)) * SIDE - 0.5
    weights = 1 - np.abs(np.clip(at, 0, SIDE - 1)[:, None] - np.arange(SIDE))
    matrix: Array = np.clip(weights, 0, 1).astype(np.float32)
    return matrix


def framed(thumbnails: Array, windows: Array, turns: Array) -> Array:
    """Thumbnails (N, 64, 64) as their signatures were computed: cut to the window, then turned."""
    import numpy as np

    out = np.empty(thumbnails.shape, dtype=np.float32)
    for code in np.unique(windows.astype(int) * 8 + turns):
        window, turn = divmod(int(code), 8)
        rows = np.nonzero((windows == window) & (turns == turn))[0]
        left, right, top, bottom = WINDOWS[window]
        part = thumbnails[rows].astype(np.float32)
        if window:
            part = _enlarging(top, bottom) @ part @ _enlarging(left, right).T
        out[rows] = turned(part, turn)
    return out
