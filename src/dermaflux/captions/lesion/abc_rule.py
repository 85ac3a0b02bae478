"""Asymmetry, border and colours of a segmented lesion, after the ABCD rule of dermoscopy.

Nachbar et al. 1994, doi 10.1016/S0190-9622(94)70061-3. Pure functions of masks and colours; reads
and writes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

REFERENCE_COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (232, 214, 206),
    "red": (178, 78, 76),
    "light brown": (172, 116, 76),
    "dark brown": (105, 62, 42),
    "blue-gray": (102, 110, 132),
    "black": (38, 29, 30),
}
"""The six colours dermoscopy counts, as sRGB beside light skin; named as captions name them."""

_REFERENCE_SKIN = (80.0, 10.0, 12.0)  # CIELAB of the skin beside which the references were chosen
# How far colours follow the skin they are seen beside: 0 not at all, 1 fully. A lamp changes both
# alike, but pigment on dark skin is not darker by as much as the skin is.
_FOLLOW_LIGHTNESS, _FOLLOW_HUE = 0.7, 0.3
_MINIMUM_SHARE = 0.04  # of the lesion; less is texture or the blend between two colours
_ANGLES = 36
_HARMONICS = 8


def asymmetry_index(mask: Mask) -> float:
    """1 - overlap of a shape (H, W) with its mirror images: 0 symmetric, below 1.

    Overlap is intersection over union, averaged over two perpendicular axes through the centroid,
    for the pair of axes where it is largest, as the rule chooses them. Principal axes would not do:
    those of a round lesion point anywhere. The shape is blurred by 4 pixels first, so that the
    fringe, which belongs to the border, does not count.
    """
    margin = max(mask.shape)
    weight = ndimage.gaussian_filter(np.pad(mask, 12).astype(np.float64), 4.0)
    y, x = 2 * np.array(np.nonzero(weight[::2, ::2] > 0.02))  # a blurred shape is smooth enough
    w = weight[y, x]
    dy, dx = y - np.average(y, weights=w), x - np.average(x, weights=w)
    angle = np.arange(_ANGLES)[:, None] * (np.pi / _ANGLES)
    # Reflection about the line at `angle` is the matrix [[c, s], [s, -c]] on (dx, dy).
    c, s = np.cos(2 * angle), np.sin(2 * angle)
    column = np.rint(x - dx + c * dx + s * dy).astype(np.intp) + margin
    row = np.rint(y - dy + s * dx - c * dy).astype(np.intp) + margin
    padded = np.pad(weight, margin)
    mirrored = padded[np.clip(row, 0, padded.shape[0] - 1), np.clip(column, 0, padded.shape[1] - 1)]
    common = np.minimum(mirrored, w).sum(axis=1)
    overlap = common / (2 * w.sum() - common)
    pairs = (overlap + np.roll(overlap, _ANGLES // 2)) / 2
    return float(np.clip(1.0 - pairs.max(), 0.0, 1.0))


def border_irregularity(mask: Mask) -> float:
    """1 - length of the smoothed contour / length of the contour (H, W): 0 smooth, below 1 jagged.

    The smoothed contour keeps the lowest elliptic Fourier harmonics (Kuhl and Giardina 1982,
    doi 10.1016/0146-664X(82)90034-X), so the overall shape, which belongs to asymmetry, does not
    count.
    """
    from skimage.measure import find_contours

    # The blur takes the staircase of the pixel grid away and leaves notches.
    field = ndimage.gaussian_filter(np.pad(mask, 6).astype(np.float64), 0.7)
    contour = max(find_contours(field, 0.5), key=len)  # type: ignore[no-untyped-call]
    position = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(contour, axis=0).T))])
    even = np.linspace(0.0, position[-1], 256, endpoint=False)
    points = np.interp(even, position, contour[:, 1]) + 1j * np.interp(
        even, position, contour[:, 0]
    )
    spectrum = np.fft.fft(points)
    spectrum[_HARMONICS + 1 : -_HARMONICS] = 0.0
    smooth = np.fft.ifft(spectrum)
    length, smooth_length = (
        np.abs(np.diff(curve, append=curve[:1])).sum() for curve in (points, smooth)
    )
    return float(np.clip(1.0 - smooth_length / length, 0.0, 1.0))


def colour_shares(lab: Array, skin: Array) -> dict[str, float]:
    """Share of the lesion in each reference colour, largest first; shares under 4 % are left out.

    `lab` (N, 3) are CIELAB pixels of the lesion and `skin` (N, 3) the skin expected there. Each
    pixel counts for the nearest reference (CIE 1976 difference) after an adaptation towards light
    skin, without which a brown mole on dark skin would be black.
    """
    from skimage.color import rgb2lab

    references = rgb2lab(np.array([list(REFERENCE_COLOURS.values())]) / 255)[0]
    light, a, b = _REFERENCE_SKIN
    gain = (light / np.maximum(skin[:, :1], 15.0)) ** _FOLLOW_LIGHTNESS
    hue_gain = np.sqrt(gain)
    hue = lab[:, 1:] * hue_gain
    hue = hue - _FOLLOW_HUE * (skin[:, 1:] * hue_gain - np.array([a, b]))
    adapted = np.concatenate([lab[:, :1] * gain, hue], axis=1)
    nearest = ((adapted[:, None] - references) ** 2).sum(axis=-1).argmin(axis=1)
    shares = np.bincount(nearest, minlength=len(references)) / len(lab)
    named = sorted(zip(REFERENCE_COLOURS, shares.tolist(), strict=True), key=lambda item: -item[1])
    return {name: share for name, share in named if share >= _MINIMUM_SHARE or name == named[0][0]}
