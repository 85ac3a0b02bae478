"""Do images have the attributes that their prompts ask for: asymmetry, border, colours?

Prompts are read by the words that `caption` reports agreement for; images are measured as the
captioner `measured` measures photographs. Spearman's rho of the level that is asked for and the
value measured, of the pool, of the same images with prompts permuted within each class, where
nothing but the class can be left, and of real images with their own captions, which is what a
perfect generator would reach. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dermaflux.audit.interval import NORMAL, Interval, missing
from dermaflux.captions.lesion.agreement import asymmetry_level, border_level, colour_level
from dermaflux.captions.lesion.measured import Measurements
from dermaflux.core.arrays import Array

ATTRIBUTES: Mapping[str, Callable[[str], int | None]] = {
    "asymmetry": asymmetry_level,
    "border": border_level,
    "colours": colour_level,
}
"""Attribute -> its level in a text; None where the text states none."""
MINIMUM = 10
"""Images of which the level is stated and the value measured; with fewer, rho means nothing."""
Values = Mapping[str, float | None]
"""Measured value of each attribute; None where it could not be measured."""
Json = dict[str, Any]


def values(found: Measurements) -> dict[str, float | None]:
    """The attributes of an image that was measured."""
    colours = None if found.colours is None else float(len(found.colours))
    return {"asymmetry": found.asymmetry, "border": found.border_irregularity, "colours": colours}


def spearman(asked: Array, measured: Array) -> Interval:
    """Rho of two columns (N,), N >= 4, that are not constant, with a 95 % interval.

    By Fisher's z with the standard error of Bonett and Wright (2000, Psychometrika 65:23, equation
    4): sqrt((1 + rho^2 / 2) / (N - 3)).
    """
    from scipy.stats import spearmanr

    rho = float(spearmanr(asked, measured).statistic)
    if abs(rho) >= 1:
        return Interval(rho, rho, rho)
    half = NORMAL * np.sqrt((1 + rho**2 / 2) / (len(asked) - 3))
    low, high = np.tanh(np.arctanh(rho) + np.array([-half, half]))
    return Interval(rho, float(low), float(high))


def agreement(texts: Sequence[str], measured: Sequence[Values]) -> Json:
    """Rho of each attribute over the images of which both sides are known, and their number.

    Texts and values of the same images, in order.
    """
    rows: Json = {}
    for name, level in ATTRIBUTES.items():
        asked = np.array([_number(level(text)) for text in texts])
        seen = np.array([_number(of_image[name]) for of_image in measured])
        known = np.isfinite(asked) & np.isfinite(seen)
        asked_known, seen_known = asked[known], seen[known]
        rows[name] = {"images": int(known.sum()), "of": len(texts)}
        stated = int(np.isfinite(asked).sum())
        if known.sum() < MINIMUM:
            found = int(np.isfinite(seen).sum())
            rows[name] |= missing(
                f"needs {MINIMUM} images whose text states it and whose pixels show it; of "
                f"{len(texts):,} texts {stated:,} state it, and it was measured of {found:,} images"
            )
        elif np.ptp(asked_known) == 0 or np.ptp(seen_known) == 0:
            side = "every text states" if np.ptp(asked_known) == 0 else "every image shows"
            rows[name] |= missing(f"{side} the same level")
        else:
            rows[name] |= spearman(asked_known, seen_known)._asdict()
    return rows


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def permuted(texts: Sequence[str], labels: Sequence[str]) -> list[str]:
    """The texts permuted at random within each class."""
    draw = np.random.Generator(np.random.PCG64(0))
    out, classes = np.array(texts, dtype=object), np.array(labels)
    for label in sorted(set(labels)):
        members = np.flatnonzero(classes == label)
        out[members] = out[draw.permutation(members)]
    return list(out)


def report(
    texts: Sequence[str], labels: Sequence[str], measured: Sequence[Values], classes: Sequence[str]
) -> Json:
    """`agreement` of all images and of each of the `classes`, by group: `all`, then the classes."""
    groups: Json = {"all": agreement(texts, measured)}
    for name in classes:
        members = [index for index, label in enumerate(labels) if label == name]
        groups[name] = agreement([texts[i] for i in members], [measured[i] for i in members])
    return groups
