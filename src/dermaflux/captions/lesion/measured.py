"""The `measured` captioner: numbers from image analysis, and the sentences they become.

Needs no model. The sentences follow the ABC description of the paper (DermaFlux, Figure 2); each
level of an attribute has one word that no other level uses, so that a text encoder can learn it.
Reads and writes nothing.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from dermaflux.captions.lesion import abc_rule
from dermaflux.captions.lesion.segmentation import SIDE, Mask, segment
from dermaflux.captions.text.label import label_sentence
from dermaflux.core.hashing import rank


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
    """Diameter of the circle of the lesion's area, per shorter side of the picture."""


_CUT_OFF = 0.2  # share of the outline on the edge of the picture above which the shape is unknown
ASYMMETRY_LIMITS = (0.10, 0.17)
"""Indices at which the words change: symmetrical, slight, notable asymmetry."""
BORDER_LIMITS = (0.04, 0.08, 0.135)
"""Likewise: smooth, small notches, irregular, very irregular."""

_ASYMMETRY = (
    (
        "The mole is generally symmetrical.",
        "The mole is symmetrical, with two matching halves.",
        "The shape of the mole is symmetrical.",
    ),
    (
        "The mole shows a slight asymmetry.",
        "The mole has a slight asymmetry, with one half a little larger.",
        "There is a slight asymmetry in the shape of the mole.",
    ),
    (
        "The mole exhibits a notable degree of asymmetry.",
        "The mole shows a notable asymmetry, with one half unlike the other.",
        "There is a notable asymmetry in the shape of the mole.",
    ),
)
_BORDER = (
    (
        "The border is smooth.",
        "It has a smooth and regular border.",
        "The border of the mole is smooth and well defined.",
    ),
    (
        "The border is regular with a few small notches.",
        "It has a border with a few small notches.",
        "The border of the mole has some notches and bumps.",
    ),
    (
        "The border is irregular and uneven.",
        "It has an uneven, irregular border.",
        "The border of the mole is uneven and irregular.",
    ),
    (
        "The border is very irregular and jagged.",
        "It has a jagged, very irregular border.",
        "The border of the mole is jagged and very irregular.",
    ),
)
_ONE_COLOUR = (
    "The color is a uniform {0}.",
    "The coloration is uniform, in {0}.",
    "The color of the mole is {0} and uniform.",
)
_MORE_COLOURS = (
    "The color is mainly {0}, with {1}: {2} colors in all.",
    "The coloration varies over {2} colors, mainly {0}, with {1}.",
    "There are {2} colors: mainly {0}, with {1}.",
)
_COUNTS = ("no", "one", "two", "three", "four", "five", "six")


def measure(image: np.ndarray[Any, np.dtype[np.uint8]]) -> Measurements:
    """Measure the lesion in an sRGB picture (H, W, 3) of any size."""
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    found = segment(np.asarray(picture))
    if found is None:
        return Measurements()
    mask = found.mask
    inner = ndimage.binary_erosion(mask, iterations=3)
    # The rim of a lesion is a blend of pigment and skin; a lesion of nothing but rim has to do.
    core = inner if inner.sum() >= 30 else mask
    lab = ndimage.gaussian_filter(found.lab, (0.7, 0.7, 0.0))
    colours = tuple(abc_rule.colour_shares(lab[core], found.skin[core]))
    diameter = 2 * np.sqrt(mask.sum() / np.pi) / min(mask.shape)
    whole = _edge_share(mask) <= _CUT_OFF
    return Measurements(
        asymmetry=round(abc_rule.asymmetry_index(mask), 4) if whole else None,
        border_irregularity=round(abc_rule.border_irregularity(mask), 4) if whole else None,
        colours=colours,
        diameter_fraction=round(float(diameter), 4),
    )


def _edge_share(mask: Mask) -> float:
    """Share of a mask's outline pixels that lie on the edge of the picture."""
    outline = mask & ~ndimage.binary_erosion(mask)
    edge = np.ones_like(mask)
    edge[1:-1, 1:-1] = False
    return float((outline & edge).sum() / outline.sum())


def describe(measurements: Measurements, label: str, image_id: str) -> str:
    """Caption of 25 to 60 words; the wording, not the content, varies with a hash of `image_id`."""
    digest = rank(image_id)
    sentences = [label_sentence(label)]
    a, b, colours = measurements.asymmetry, measurements.border_irregularity, measurements.colours
    if colours is None:
        sentences.append(
            "No mole stands out from the skin, so its asymmetry, border and color cannot be told."
        )
        return " ".join(sentences)
    if a is None or b is None:
        sentences.append(
            "The mole reaches beyond the picture, so its asymmetry and border cannot be told."
        )
    else:
        sentences.append(_pick(_ASYMMETRY[bisect.bisect(ASYMMETRY_LIMITS, a)], digest[0]))
        sentences.append(_pick(_BORDER[bisect.bisect(BORDER_LIMITS, b)], digest[1]))
    first, *others = colours
    patterns = _MORE_COLOURS if others else _ONE_COLOUR
    sentence = _pick(patterns, digest[2])
    sentences.append(sentence.format(first, _listed(others), _COUNTS[len(colours)]))
    return " ".join(sentences)


def _pick(variants: tuple[str, ...], byte: int) -> str:
    return variants[byte % len(variants)]


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
