from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from hand_labelled import CAPTIONS

from dermaflux.captions.lesion.abc_rule import REFERENCE_COLOURS
from dermaflux.captions.lesion.agreement import (
    asymmetry_level,
    border_level,
    colour_level,
    figures,
    kappa,
)
from dermaflux.captions.lesion.measured import Measurements
from dermaflux.captions.text.description import describe

ASYMMETRY = {
    "The mole appears to be symmetrical, with both halves alike.": 0,
    "The mole has no asymmetry.": 0,
    "Asymmetry: absent.": 0,
    "There is slight asymmetry.": 1,
    "It is slightly asymmetrical.": 1,
    "The lesion is not perfectly symmetrical.": 1,
    "Asymmetry: slight": 1,
    "In terms of asymmetry, the mole is asymmetrical.": 2,
    "The mole isn't symmetrical.": 2,
    "The mole shows a lack of symmetry.": 2,
    "The asymmetry is pronounced.": 2,
    "I describe its asymmetry, border and color.": None,
}
BORDER = {
    "The border is smooth.": 0,
    "In terms of border irregularity, the edges are well-defined.": 0,
    "There is no border irregularity.": 0,
    "The edges are slightly irregular.": 1,
    "The border is mostly smooth.": 1,
    "The border is a bit wavy.": 1,
    "Its border irregularity is minimal.": 1,
    "The border is not smooth.": 2,
    "The margin is uneven and blurred.": 2,
    "The borders are very irregular.": 3,
    "The border of the mole is irregular, with jagged edges.": 3,
    "The surface is rough.": None,
}
COLOURS = {
    "The color is a uniform brown.": 1,
    "The color is brown with no variation.": 1,
    "The mole is brown and the surrounding skin is pink.": 1,
    "It is dark brown with black spots.": 2,
    "The color is variegated.": 2,
    "The color varies from light brown to dark brown to black.": 3,
    "There are three colors: tan, red and blue.": 3,
    "Its color is brown, black, red, blue and white.": 4,
    "The border is smooth.": None,
}
READERS = ((asymmetry_level, ASYMMETRY), (border_level, BORDER), (colour_level, COLOURS))


@pytest.mark.parametrize(
    ("level", "text", "expected"),
    [(level, text, expected) for level, texts in READERS for text, expected in texts.items()],
)
def test_each_pattern_reads_the_sentence_it_was_written_for(level, text, expected):
    assert level(text) == expected


MISREAD = {
    (
        "asymmetry",
        "In terms of symmetry, this mole is balanced",
    ): "symmetry without a symmetric word",
    ("asymmetry", "Its halves do not match at all"): "no word for asymmetry",
    ("border", "The surrounding skin is pink"): "'demarcated' without the word border",
    ("colours", "The shape of the nevus is irregular"): "colours listed after a colon",
}
"""Attribute and beginning of a caption whose words the rules do not cover."""


def _hand_labelled() -> Iterator[Any]:
    readers = {"asymmetry": asymmetry_level, "border": border_level, "colours": colour_level}
    for attribute, level in readers.items():
        for caption in CAPTIONS:
            reasons = [
                reason
                for (name, start), reason in MISREAD.items()
                if name == attribute and caption.text.startswith(start)
            ]
            marks = [pytest.mark.xfail(strict=True, reason=reason) for reason in reasons]
            yield pytest.param(level, caption.text, getattr(caption, attribute), marks=marks)


@pytest.mark.parametrize(("level", "text", "expected"), list(_hand_labelled()))
def test_captions_are_read_as_a_person_reads_them(level, text, expected):
    assert level(text) == expected


def test_readers_agree_with_a_person_and_do_not_by_guessing():
    """Kappa over the hand-labelled captions, and of a reader that always says the commonest."""
    readers = {"asymmetry": asymmetry_level, "border": border_level, "colours": colour_level}
    for attribute, level in readers.items():
        pairs = [(level(caption.text), getattr(caption, attribute)) for caption in CAPTIONS]
        assert kappa([pair for pair in pairs if None not in pair]) > 0.9, attribute
        constant = [(0, person) for _, person in pairs if person is not None]
        assert kappa(constant) is None


def _described() -> pd.DataFrame:
    """Captions of every combination of levels, with the numbers they were made from."""
    colours = tuple(REFERENCE_COLOURS)
    combinations = itertools.product((0.02, 0.13, 0.3), (0.01, 0.06, 0.1, 0.3), range(1, 6))
    rows = []
    for number, (a, b, n) in enumerate(combinations):
        for copy in range(4):
            image_id = f"x/{number}-{copy}"
            text = describe(Measurements(a, b, colours[copy % 2 :][:n], 0.5), "benign", image_id)
            rows.append((image_id, text, a, b, n))
    names = ["image_id", "caption", "asymmetry", "border_irregularity", "colours"]
    return pd.DataFrame(rows, columns=names)


def test_faithful_captions_agree_fully_and_captions_of_other_images_by_chance():
    frame = _described()
    for name, agreement in figures(frame).items():
        assert agreement == {"kappa": 1.0, "captions": 240, "not_stated": 0}, name
    shuffled = frame["caption"].tolist()
    random.Random(1).shuffle(shuffled)
    for name, agreement in figures(frame.assign(caption=shuffled)).items():
        assert abs(agreement["kappa"]) < 0.2, name
    # A model that writes one description for every image carries no information at all.
    constant = frame.assign(caption="It is asymmetrical, with an irregular border, brown.")
    assert [agreement["kappa"] for agreement in figures(constant).values()] == [None, None, None]


def test_kappa_is_the_one_of_its_definition_also_where_a_level_never_occurs():
    pairs = [(0, 0), (3, 3), (3, 0), (0, 0), (3, 3), (0, 3), (2, 3)]
    observed = sum((a - b) ** 2 for a, b in pairs) / len(pairs)
    expected = sum((a - b) ** 2 for a, _ in pairs for _, b in pairs) / len(pairs) ** 2
    assert kappa(pairs) == pytest.approx(1 - observed / expected, abs=1e-4)
