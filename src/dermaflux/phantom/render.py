"""Draws a phantom lesion as an image, in integers only, so that every machine gets the same bytes.

Lengths are in units of 1/1024 of half the shorter image side, so a lesion looks the same at every
size. Colours and opacities are 0..255 and 0..256. The one float operation is a square root of an
integer below 2^52, which IEEE 754 rounds exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dermaflux.core.arrays import Pixels
from dermaflux.phantom.lesion import Lesion, RandomIntegers

Grid = np.ndarray[Any, np.dtype[np.int32]]

_UNIT = 1024
_TILE = 64  # lattice points per side; noise repeats after as many cells
_WEIGHTS = np.array([(t * t * (768 - 2 * t)) >> 16 for t in range(256)], dtype=np.int32)
_QUARTER = (0, 100, 200, 297, 392, 483, 569, 650, 724, 792, 851, 903, 946, 980, 1004, 1019, 1024)

# sRGB; skin by tone from very light to very dark, pigments as seen on light skin.
_SKIN = (
    (234, 202, 194),
    (226, 184, 168),
    (208, 162, 142),
    (180, 132, 108),
    (142, 100, 80),
    (104, 74, 62),
)
_PIGMENT = {
    "light brown": (174, 120, 84),
    "dark brown": (104, 64, 46),
    "black": (40, 31, 32),
    "blue-grey": (106, 110, 126),
    "red": (170, 80, 76),
    "white": (226, 204, 194),
}
_DARKENING = (256, 250, 240, 220, 190, 160)  # of pigments, by tone, of 256
# Centres of patches of further colours in radii / 1024; mirrored where the outline is symmetric.
_SLOTS = (
    ((0, 0), (700, 0), (0, 700), (500, 500)),
    ((-560, 60), (560, 80), (0, 620), (20, 0)),
    ((-560, -220), (340, -540), (540, 300), (-80, 150)),
)
_PATCH_RADIUS = (0, 560, 470, 430, 400)  # by number of patches
_BORDER = (10, 120, 230, 350)  # amplitude of the outline's noise by level


def _sine(step: int) -> int:
    """1024 sin(2 pi step / 64), rounded."""
    step &= 63
    half = step & 31
    value = _QUARTER[half if half <= 16 else 32 - half]
    return value if step < 32 else -value


def _noise(tile: Grid, ys: Grid, xs: Grid) -> Grid:
    """Value noise: the lattice at cell coordinates `ys` (H,), `xs` (W,) x 256; (H, W) in +-1024."""
    yi, yw = ys >> 8, _WEIGHTS[ys & 255][:, None]
    rows = tile[yi & (_TILE - 1)]
    rows = rows + (((tile[(yi + 1) & (_TILE - 1)] - rows) * yw) >> 8)
    xi, xw = xs >> 8, _WEIGHTS[xs & 255]
    left = rows.take(xi & (_TILE - 1), axis=1)
    right: Grid = rows.take((xi + 1) & (_TILE - 1), axis=1)
    right -= left
    right *= xw
    right >>= 8
    right += left
    return right


def _tile(rng: RandomIntegers) -> Grid:
    """Random lattice (64, 64) in -1024..1023."""
    words = rng.words(_TILE * _TILE // 4)
    parts = np.stack([(words >> np.uint64(shift)) & np.uint64(2047) for shift in (0, 16, 32, 48)])
    return parts.reshape(_TILE, _TILE).astype(np.int32) - _UNIT


class _Noise:
    """Noise fields at any number of cells per unit length, anchored to given axes."""

    def __init__(self, rng: RandomIntegers, ys: Grid, xs: Grid) -> None:
        self._rng, self._tile, self._ys, self._xs = rng, _tile(rng), ys, xs

    def __call__(self, cells: int) -> Grid:
        """`cells` per 1024 units of length."""
        oy, ox = self._rng.below(_TILE << 8), self._rng.below(_TILE << 8)
        return _noise(self._tile, ((self._ys * cells) >> 2) + oy, ((self._xs * cells) >> 2) + ox)


def _root(values: Grid) -> Grid:
    return np.sqrt(values.astype(np.float64)).astype(np.int32)


def _outline(
    lesion: Lesion, rng: RandomIntegers, noise: _Noise, ys: Grid, xs: Grid
) -> tuple[Grid, ...]:
    """Normalised coordinates u, v (H, W) and depth below the outline, positive inside."""
    turn = rng.below(64)
    cosine, sine = _sine(turn + 16), _sine(turn)
    along = _UNIT * _UNIT // rng.between(600, 800)
    across = along * 1024 // rng.between(740, 1000)
    y, x = ys[:, None], xs[None, :]
    u = (((x * cosine + y * sine) >> 10) * along) >> 10
    v = (((y * cosine - x * sine) >> 10) * across) >> 10
    np.clip(u, -6000, 6000, out=u)
    np.clip(v, -6000, 6000, out=v)
    if lesion.asymmetry >= 1:  # an egg: asymmetric about one axis
        taper = rng.between(330, 430) * (1 - 2 * rng.below(2))
        v = (v * (1024 + ((np.clip(u, -1400, 1400) * taper) >> 10))) >> 10
    if lesion.asymmetry == 2:  # bent and lobed: about both
        bend = rng.between(380, 520)
        near = np.clip(u, -1500, 1500)
        v = v + ((((near * near) >> 10) * bend) >> 10) - (bend >> 1)
        v = v + ((np.clip(u, -1500, 1500) * rng.between(120, 220)) >> 10)
    distance = _root(u * u + v * v)
    depth = 1024 - distance
    coarse, fine = noise(8), noise(17)
    amplitude = _BORDER[lesion.border]
    # Notches: the crease of |noise| cuts inwards, as pseudopods leave gaps between them.
    depth += ((240 - np.abs(coarse)) * amplitude) >> 10
    depth += (fine * amplitude) >> 11
    return u, v, depth


def _coloured(lesion: Lesion, rng: RandomIntegers, noise: _Noise, u: Grid, v: Grid) -> Grid:
    """Pigment (3, H, W): the ground colour, and one warped patch per further colour."""
    ground, *patches = (np.array(_PIGMENT[name], dtype=np.int32) for name in lesion.colours)
    shade = 256 + (noise(5) >> 5) + (noise(12) >> 5)
    colour: Grid = (ground[:, None, None] * shade) >> 8
    warp = noise(4) >> 2
    fine = noise(9) >> 3
    uu = (np.abs(u) if lesion.asymmetry == 0 else u) + warp + fine
    vv = (np.abs(v) if lesion.asymmetry <= 1 else v) + warp - fine
    slots = rng.shuffled(_SLOTS[lesion.asymmetry])
    if "white" in lesion.colours[1:]:  # at the rim it would look like skin
        innermost = min(slots, key=lambda slot: slot[0] ** 2 + slot[1] ** 2)
        slots.remove(innermost)
        slots.insert(lesion.colours.index("white") - 1, innermost)
    flip, swap = 1 - 2 * rng.below(2), rng.below(2)
    radius = _PATCH_RADIUS[len(patches)]
    for patch, (cu, cv) in zip(patches, slots, strict=False):
        if lesion.asymmetry == 2 and swap:
            cu, cv = cv, cu
        du, dv = uu - flip * cu if lesion.asymmetry else uu - cu, vv - cv
        inside = np.clip(((radius * radius - du * du - dv * dv) * 3) >> 11, 0, 232)
        colour += ((patch[:, None, None] - colour) * inside) >> 8
    return colour


def _texture(lesion: Lesion, noise: _Noise) -> Grid:
    """Brightness (H, W) about 256 that the dermoscopic pattern gives the lesion."""
    if lesion.pattern == "reticular":
        mesh = np.minimum(np.abs(noise(15)), np.abs(noise(15)))
        lines: Grid = np.clip((300 - mesh) >> 3, 0, 36)
        return 268 - lines
    if lesion.pattern == "globular":
        globules: Grid = np.clip((noise(13) + noise(17) - 420) >> 2, 0, 66)
        return 262 - globules
    return 256 + (noise(9) >> 6)


def _skin(lesion: Lesion, rng: RandomIntegers, noise: _Noise) -> Grid:
    """Skin (3, H, W) with mottling, fine relief and a cast of the lamp."""
    base = np.array(_SKIN[lesion.tone - 1], dtype=np.int32)
    cast = np.array([rng.between(-8, 10), rng.between(-10, 6), rng.between(-18, 10)])
    mottle = noise(3) + (noise(7) >> 1) + (noise(16) >> 1)
    relief = 256 + (noise(23) >> 8) + (noise(31) >> 8) + (noise(43) >> 8) + (mottle >> 7)
    redness = (np.clip(mottle >> 6, -14, 14) * int(base[1])) >> 9
    shift = np.array([0, 1, 1], dtype=np.int32)
    skin = (base + cast.astype(np.int32))[:, None, None] - shift[:, None, None] * redness
    lit: Grid = (skin * relief) >> 8
    return lit


def _light(rng: RandomIntegers, ys: Grid, xs: Grid) -> Grid:
    """Illumination (H, W), 256 at full: a slope, and one of no, soft or circular vignette."""
    slope_y, slope_x = rng.between(-16, 16), rng.between(-16, 16)
    light = 256 + ((ys * slope_y) >> 10)[:, None] + ((xs * slope_x) >> 10)[None, :]
    squared = ((ys * ys) >> 10)[:, None] + ((xs * xs) >> 10)[None, :]
    kind = rng.choose((52, 41, 7))
    if kind == 1:
        light -= np.clip(((squared - 500) * rng.between(30, 90)) >> 10, 0, 150)
    elif kind == 2:
        light = (light * np.clip((rng.between(1150, 1500) - squared) * 2, 8, 256)) >> 8
    return light


def _hairs(rng: RandomIntegers, shape: tuple[int, int]) -> Grid:
    """Opacity (H, W) of hairs: quadratic Bezier curves, splatted with bilinear weights."""
    height, width = shape
    side = min(shape)
    mask = np.zeros(height * width, dtype=np.int32)
    count = (0, 0, 3, 6, 12)[rng.choose((62, 14, 13, 8, 3))]
    steps = 4 * max(shape)
    t = np.arange(steps, dtype=np.int64)
    for _ in range(count):
        points = []
        for extent in (height, width):
            a, c = (rng.between(-extent, 2 * extent) for _ in range(2))
            b = (a + c) // 2 + rng.between(-extent, extent) // 3
            a, b, c = 16 * a, 16 * b, 16 * c
            bezier = a * (steps - t) ** 2 + 2 * b * t * (steps - t) + c * t * t
            points.append(bezier // (steps * steps))
        for thick in range(1 + side // 200):
            y, x = points[0] + 12 * thick, points[1] + 6 * thick
            yi, xi = y >> 4, x >> 4
            fits = (yi >= 0) & (yi < height - 1) & (xi >= 0) & (xi < width - 1)
            y, x, index = y[fits] & 15, x[fits] & 15, (yi * width + xi)[fits]
            for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
                weight = (y if dy else 16 - y) * (x if dx else 16 - x)
                np.maximum.at(mask, index + dy * width + dx, weight.astype(np.int32))
    return np.minimum(2 * mask, 256).reshape(shape)


def _ruler(image: Grid, rng: RandomIntegers) -> None:
    """Tick marks along the lower or the left edge of one photograph in eight, in place."""
    if rng.below(8):
        return
    upright = rng.below(2)
    plane = image.transpose(0, 2, 1)[:, :, ::-1] if upright else image
    _, height, width = plane.shape
    side = min(height, width)
    gap, thick = max(side // 14, 4), max(side // 110, 1)
    for number, start in enumerate(range(rng.below(gap), width, gap)):
        length = side // (9 if number % 5 == 0 else 16)
        plane[:, height - length :, start : start + thick] >>= 1


def render(lesion: Lesion, height: int, width: int) -> Pixels:
    """A photograph of the lesion, sRGB uint8 (height, width, 3)."""
    shape = RandomIntegers("lesion", lesion.key)
    photo = RandomIntegers("photo", lesion.key, lesion.view)
    side = min(height, width)
    ys = (2 * np.arange(height, dtype=np.int32) + 1 - height) * _UNIT // side
    xs = (2 * np.arange(width, dtype=np.int32) + 1 - width) * _UNIT // side
    zoom = photo.between(920, 1150)
    lesion_ys = ((ys - photo.between(-130, 130)) * zoom) >> 10
    lesion_xs = ((xs - photo.between(-130, 130)) * zoom) >> 10
    if lesion.view & 1:
        lesion_xs = -lesion_xs
    inner, outer = _Noise(shape, lesion_ys, lesion_xs), _Noise(photo, ys, xs)

    u, v, depth = _outline(lesion, shape, inner, lesion_ys, lesion_xs)
    sharpness = shape.between(8, 28)
    opacity = np.clip((depth * sharpness >> 3) + 90, 0, 170) + np.clip(depth >> 2, 0, 78)
    pigment = _coloured(lesion, shape, inner, u, v)
    pigment = (pigment * _texture(lesion, inner)) >> 8
    pigment = (pigment * _DARKENING[lesion.tone - 1]) >> 8

    image = _skin(lesion, photo, outer)
    image += ((pigment - image) * opacity) >> 8
    _ruler(image, photo)
    hairs = _hairs(photo, (height, width))
    image -= (image - 38) * (hairs * 210 >> 8) >> 8
    image = (image * _light(photo, ys, xs)) >> 8
    return np.ascontiguousarray(np.clip(image, 0, 255).astype(np.uint8).transpose(1, 2, 0))
