"""What image analysis measures of a lesion: asymmetry, border, colours, diameter.

Needs no model. Reads and writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from dermaflux.captions.lesion import abc_rule
from dermaflux.captions.lesion.segmentation import SIDE, Mask, segment


@dataclass(frozen=True)
class Measurements:
    """What could be measured; None where it could not."""

    asymmetry: float | None = None
    """Index in [0, 1), see `abc_rule.asymmetry_index`; None when the lesion is cut off."""
    border_irregularity: float | None = None
    """In [0, 1), see `abc_rule.border_irregularity`; None when the lesion is cut off."""
    colours: tuple[str, ...] | None = None
    """Names from `abc_rule.REFERENCE_COLOURS`, the largest share first; None without a lesion."""
    diameter_fraction: float | None = None
    """Diameter of the circle of the lesion's area, per shorter side of the image."""


_CUT_OFF = 0.2  # share of the outline on the edge of the image above which the shape is unknown
ASYMMETRY_LIMITS = (0.10, 0.17)
"""Indices at which the words change: symmetrical, slight, notable asymmetry."""
BORDER_LIMITS = (0.04, 0.08, 0.135)
"""Likewise: smooth, small notches, irregular, very irregular."""


def measure(image: np.ndarray[Any, np.dtype[np.uint8]]) -> Measurements:
    """Measure the lesion in an sRGB image (H, W, 3) of any size."""
    from PIL import Image

    thumbnail = Image.fromarray(image)
    thumbnail.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    lesion = segment(np.asarray(thumbnail))
    if lesion is None:
        return Measurements()
    mask = lesion.mask
    inner = ndimage.binary_erosion(mask, iterations=3)
    # The rim of a lesion is a blend of pigment and skin; a lesion that is all rim is used whole.
    core = inner if inner.sum() >= 30 else mask
    lab = ndimage.gaussian_filter(lesion.lab, (0.7, 0.7, 0.0))
    colours = tuple(abc_rule.colour_shares(lab[core], lesion.skin[core]))
    diameter = 2 * np.sqrt(mask.sum() / np.pi) / min(mask.shape)
    whole = _edge_share(mask) <= _CUT_OFF
    return Measurements(
        asymmetry=round(abc_rule.asymmetry_index(mask), 4) if whole else None,
        border_irregularity=round(abc_rule.border_irregularity(mask), 4) if whole else None,
        colours=colours,
        diameter_fraction=round(float(diameter), 4),
    )


def _edge_share(mask: Mask) -> float:
    """Share of a mask's outline pixels that lie on the edge of the image."""
    outline = mask & ~ndimage.binary_erosion(mask)
    edge = np.ones_like(mask)
    edge[1:-1, 1:-1] = False
    return float((outline & edge).sum() / outline.sum())
