"""The `measured` captioner: the sentences that measurements become.

The sentences follow the ABC description of the paper (DermaFlux, Figure 2); each level of an
attribute has one word that no other level uses, so that a text encoder can learn it. Pure.
"""

from __future__ import annotations

import bisect

from dermaflux.captions.lesion.measured import ASYMMETRY_LIMITS, BORDER_LIMITS, Measurements
from dermaflux.captions.text.label import label_sentence
from dermaflux.core.hashing import rank

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
