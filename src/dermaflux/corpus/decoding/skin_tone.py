"""Skin tone measured from the skin around a lesion, for images whose dataset publishes none.

The individual typology angle ITA = arctan((L* - 50) / b*) in degrees (Chardon et al. 1991,
doi 10.1111/j.1467-2494.1991.tb00561.x; D65, CIE 1976 L*a*b*), 90 for white, negative for dark skin.
Lamp, exposure and white balance of a photograph move it by more than a Fitzpatrick type is wide, so
only pairs of types are distinguished and the row says `measured`. Reads and writes nothing.
"""

from __future__ import annotations

import numpy as np

from dermaflux.core.arrays import Array, Pixels

LIGHT, TAN = 41.0, 10.0
"""Lower ends in degrees of two of Chardon's six classes, which in turn are read as the Fitzpatrick
types; Kinyanjui et al. 2020 (arXiv 1910.13268) cut skin images the same way."""

_SAMPLES = 32  # pixels sampled along the shorter side
_MINIMUM_SKIN = 0.04  # of the sampled pixels that must be neither frame nor glare
_CENTRE = 0.62  # of the half side; the lesion lies inside, the skin outside
_DARKEST, _LIGHTEST = 8.0, 97.0  # L*: vignette and print below, glare and white card above
_HUE = (20.0, 85.0)  # degrees in a*, b*: skin is red to yellow; gel, ink and cloth are not
_CHROMA = 4.0  # a*, b* length under which hue means nothing
_SKIN_QUANTILES = (
    0.5,
    0.9,
)  # quantiles of L*: hair, shadow and lesion are darker, glare is lighter
_SPREAD = 20.0  # L* between these quantiles, above which hair or shadow covers the skin

_TO_XYZ = (
    np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    / np.array([0.95047, 1.0, 1.08883])[:, None]
)
_LEVEL = np.arange(256) / 255
_LINEAR = np.where(_LEVEL <= 0.04045, _LEVEL / 12.92, ((_LEVEL + 0.055) / 1.055) ** 2.4)


def lab(pixels: Pixels) -> Array:
    """CIELAB (..., 3) of sRGB (..., 3), white point D65."""
    relative = _LINEAR[pixels] @ _TO_XYZ.T
    root = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative * 841 / 108 + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def typology_angle(lightness: float, yellow: float) -> float:
    """ITA in degrees of L* and b*; a b* below 0, which skin never has, counts as 0."""
    return float(np.degrees(np.arctan2(lightness - 50.0, max(yellow, 0.0))))


def fitzpatrick_pair(angle: float) -> str:
    """``I-II``, ``III-IV`` or ``V-VI`` for an ITA in degrees."""
    if angle > LIGHT:
        return "I-II"
    return "III-IV" if angle > TAN else "V-VI"


def skin_around(pixels: Pixels) -> tuple[float, float] | None:
    """Median L* and b* of the skin in an sRGB image (H, W, 3); None when none is clearly visible.

    Skin is the lighter half of the pixels outside the middle of the image that are neither frame
    nor glare. It must have the hue of skin, judged as a whole: under a magenta lamp the pixels of
    the right hue are those of the lesion.
    """
    height, width = pixels.shape[:2]
    step = max(1, min(height, width) // _SAMPLES)
    samples = pixels[step // 2 :: step, step // 2 :: step]
    y, x = (
        np.abs(np.linspace(-1, 1, count)) * max(1.0, extent / min(height, width))
        for count, extent in zip(samples.shape[:2], (height, width), strict=True)
    )
    outside = (y * y)[:, None] + (x * x)[None, :] > _CENTRE**2
    colours = lab(samples[outside])
    colours = colours[(colours[:, 0] > _DARKEST) & (colours[:, 0] < _LIGHTEST)]
    if len(colours) < _MINIMUM_SKIN * samples.shape[0] * samples.shape[1]:
        return None
    low, high = np.quantile(colours[:, 0], _SKIN_QUANTILES)
    skin = colours[(colours[:, 0] >= low) & (colours[:, 0] <= high)]
    lightness, red, yellow = np.median(skin, axis=0)
    hue = np.degrees(np.arctan2(yellow, red))
    if high - low > _SPREAD or not _HUE[0] < hue < _HUE[1] or np.hypot(red, yellow) < _CHROMA:
        return None
    return float(lightness), float(yellow)


def measured(pixels: Pixels) -> str | None:
    """Pair of Fitzpatrick types of the skin in an sRGB image (H, W, 3); None without skin."""
    skin = skin_around(pixels)
    return None if skin is None else fitzpatrick_pair(typology_angle(*skin))
