"""Finds the lesion in a photograph by classical image analysis: no trained model, no state.

Otsu's threshold (doi 10.1109/TSMC.1979.4310076) on the Mahalanobis distance from a smooth model of
the surrounding skin, after hair is painted over (closing, as DullRazor: Lee et al. 1997,
doi 10.1016/S0010-4825(97)00020-6). Constants in pixels hold for images whose longer side is
`SIDE`. Reads and writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

SIDE = 128
_DARK = 0.16  # HSV value under which a pixel joined to the frame is vignette or letterbox
_HAIR_CONTRAST = 6.0  # CIELAB lightness by which closing lifts a hair
_HAIR_LENGTH = 16  # pixels; shorter dark strokes are structure of the lesion
_MINIMUM_AREA = 0.004  # of the image; smaller regions are specks
_MINIMUM_CONTRAST = 3.0  # CIELAB difference between lesion and ring; mottling reaches less
_NOISE = 1.2  # CIELAB units of difference from skin that mean nothing however even the skin is
_GLARE_WEIGHT = 0.7  # of being lighter than skin, which glare is more often than lesions are
_NOT_DARKER = (
    -3.0
)  # CIELAB lightness above skin at which a region is doubted; most lesions are darker
_BRIGHTER = 3.0  # likewise, at which it is glare, cloth or light skin among pigment
_TIGHTEN = 1.1  # Otsu's threshold leaves a halo round soft edges
_DISC = ndimage.iterate_structure(ndimage.generate_binary_structure(2, 1), 2)


@dataclass(frozen=True)
class Segmentation:
    """A lesion in an image of at most `SIDE` pixels."""

    mask: Mask
    """(H, W), True on the lesion; holes are filled."""
    lab: Array
    """(H, W, 3) CIELAB without hair."""
    skin: Array
    """(H, W, 3) CIELAB of the skin expected at each pixel."""


def segment(image: np.ndarray[Any, np.dtype[np.uint8]]) -> Segmentation | None:
    """Lesion of an sRGB image (H, W, 3), sides at most `SIDE`; None when no lesion stands out."""
    from skimage.color import rgb2lab

    frame = _frame(image)
    lab = _without_hair(rgb2lab(image))
    outside = ~frame
    if outside.sum() < 0.1 * outside.size:
        return None
    lesion = _locate(lab, frame, _GLARE_WEIGHT)
    if lesion is not None and _lightness(lesion) > _NOT_DARKER:
        # Lamps light the middle more, and the bright patch outweighs a small lesion inside it.
        lesion = _locate(lab, frame, None) or (lesion if _lightness(lesion) < _BRIGHTER else None)
    return lesion


def _lightness(lesion: Segmentation) -> float:
    """Mean difference of CIELAB lightness between a lesion and the skin expected there."""
    return float((lesion.lab - lesion.skin)[lesion.mask][:, 0].mean())


def _locate(lab: Array, frame: Mask, lighter: float | None) -> Segmentation | None:
    """The lesion; `lighter` weighs what is lighter than skin, None ignores it altogether."""
    lesion: Segmentation | None = None
    outside = ~frame
    # The first skin model takes the rim of the image for skin, the later ones what is not lesion.
    around = outside & _rim(outside)
    skin = _skin(lab, around)
    for _ in range(2):
        lesion = _threshold(lab, skin, around, frame, lighter)
        if lesion is None:
            return None
        beyond = outside & ~_grown(lesion.mask, 6)
        if beyond.sum() < 0.08 * beyond.size:
            break
        around = beyond
        skin = _skin(lab, around)
    return lesion


def _frame(image: np.ndarray[Any, np.dtype[np.uint8]]) -> Mask:
    """True on black corners and bars: dark regions joined to the edge of the image."""
    dark = image.max(axis=2) < 255 * _DARK
    labels, _ = ndimage.label(dark)
    corners = {int(labels[y, x]) for y in (0, -1) for x in (0, -1)} - {0}
    sizes = np.bincount(labels.ravel())
    frame = np.isin(labels, [corner for corner in corners if sizes[corner] > 0.005 * dark.size])
    return ndimage.binary_dilation(frame, _DISC, iterations=2) if frame.any() else frame


def _without_hair(lab: Array) -> Array:
    """Replace long thin dark strokes by what a closing puts in their place."""
    lightness = lab[..., 0]
    closed = ndimage.grey_closing(lightness, footprint=_DISC)
    thin = closed - lightness > _HAIR_CONTRAST
    labels, _ = ndimage.label(thin, np.ones((3, 3)))
    hair = np.zeros_like(thin)
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        height, width = (part.stop - part.start for part in box)
        extent = max(height, width)
        stroke = labels[box] == number
        # A pigment network is as fine as hair but fills its area.
        if extent >= _HAIR_LENGTH and (
            stroke.sum() < 4 * extent or extent > lightness.shape[0] // 2
        ):
            hair[box] |= stroke
    if not hair.any():
        return lab
    hair = ndimage.binary_dilation(hair)
    out = lab.copy()
    nearest = ndimage.distance_transform_edt(hair, return_distances=False, return_indices=True)
    out[hair] = lab[tuple(nearest[:, hair])]
    smooth = ndimage.gaussian_filter(out, (1.5, 1.5, 0))
    out[hair] = smooth[hair]
    return out


def _grown(mask: Mask, margin: int) -> Mask:
    """`mask` and what lies within a square of `margin` pixels round it."""
    grown: Mask = ndimage.maximum_filter(mask, 2 * margin + 1, mode="constant")
    return grown


def _rim(outside: Mask) -> Mask:
    """The outermost 8 % of the visible image."""
    return _grown(np.pad(~outside, 1, constant_values=True), SIDE // 12)[1:-1, 1:-1]


def _skin(lab: Array, where: Mask) -> Array:
    """Quadratic surface per channel (H, W, 3), fitted robustly to the pixels `where`."""
    height, width = where.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    thinned = where[::2, ::2]  # a quarter of the pixels fixes six coefficients well enough
    rows, colours = basis[::2, ::2][thinned], lab[::2, ::2][thinned]
    middle = np.median(colours, axis=0)
    keep = np.ones(len(rows), dtype=bool)
    # A weak pull to the median keeps the surface sane where no skin was seen.
    pull = np.diag([0.0, 0.02, 0.02, 0.05, 0.05, 0.05])
    coefficients = np.zeros((6, 3))
    for _ in range(2):
        a, b = rows[keep], colours[keep] - middle
        coefficients = np.linalg.solve(a.T @ a + len(a) * pull + 1e-6 * np.eye(6), a.T @ b)
        off = np.linalg.norm(colours - middle - rows @ coefficients, axis=1)
        keep = off <= max(2.5 * float(np.median(off)), 1e-6)
    return np.asarray(basis @ coefficients + middle)


def _threshold(
    lab: Array, skin: Array, around: Mask, frame: Mask, lighter: float | None
) -> Segmentation | None:
    """Otsu on the Mahalanobis distance from skin, then the most lesion-like region."""
    from skimage.filters import threshold_otsu

    difference = ndimage.gaussian_filter(lab - skin, (0.8, 0.8, 0.0))
    sample = difference[around]
    off = np.linalg.norm(sample, axis=1)
    spread = np.cov(sample[off <= 2.5 * np.median(off)].T, bias=True) + _NOISE**2 * np.eye(3)
    weighted = difference.copy()
    if lighter is None:
        weighted[difference[..., 0] > 0] = 0.0
    else:
        weighted[..., 0] *= np.where(difference[..., 0] > 0, lighter, 1.0)
    squared = np.einsum("hwi,ij,hwj->hw", weighted, np.linalg.inv(spread), weighted)
    # On a log scale a black patch does not pull the threshold above the brown that surrounds it.
    score = np.log1p(np.sqrt(squared))
    visible = score[~frame]
    if np.ptp(visible) < 1e-6:
        return None
    ceiling = np.percentile(visible, 99)
    threshold = _TIGHTEN * threshold_otsu(np.minimum(visible, ceiling))  # type: ignore[no-untyped-call]
    mask = _central(ndimage.binary_opening((score > threshold) & ~frame, _DISC))
    if mask is None:
        return None
    ring = _grown(mask, 8) & ~mask & ~frame
    contrast = np.linalg.norm(difference, axis=-1)
    if ring.any() and contrast[mask].mean() - contrast[ring].mean() < _MINIMUM_CONTRAST:
        return None
    return Segmentation(mask, lab, skin)


def _central(candidates: Mask) -> Mask | None:
    """The region with the largest area after weighting by closeness to the centre, holes filled."""
    joined = ndimage.binary_closing(np.pad(candidates, 4), _DISC, iterations=1)[4:-4, 4:-4]
    labels, count = ndimage.label(joined)
    if not count:
        return None
    height, width = labels.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    weight = np.exp(-(y * y + x * x) / (2 * 0.45**2))
    votes = ndimage.sum_labels(weight, labels, np.arange(1, count + 1))
    chosen = labels == int(np.argmax(votes)) + 1
    filled: Mask = ndimage.binary_fill_holes(chosen)
    return filled if filled.sum() >= _MINIMUM_AREA * filled.size else None
