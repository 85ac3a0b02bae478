from __future__ import annotations

import pytest

from dermaflux.core import vocabulary
from dermaflux.sources.registry import SOURCES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CC-0", "CC0"),
        ("CC0 1.0", "CC0"),
        ("cc0", "CC0"),
        ("Public Domain", "CC0"),
        ("CC-BY", "CC-BY"),
        ("CC BY 4.0", "CC-BY"),
        ("CC BY-NC 4.0", "CC-BY-NC"),
        ("cc-by-nc-nd 4.0", "CC-BY-NC-ND"),
        ("Research only", "research-only"),
        ("CC BY-SA 4.0", None),
        ("", None),
    ],
)
def test_spellings_of_licences(text: str, expected: str | None) -> None:
    assert vocabulary.licence(text) == expected


def test_four_skin_tone_vocabularies_become_one() -> None:
    roman = ("I", "II", "III", "IV", "V", "VI")
    assert tuple(map(vocabulary.fitzpatrick, ("i", "II", "3", "4.0", "5.", "6.0"))) == roman
    assert [vocabulary.fitzpatrick(text) for text in ("", "0", "7.0", "1.5", "VII")] == [None] * 5
    assert [vocabulary.fitzpatrick_pair(t) for t in ("12", "34.0", "56", "13")] == [
        *("I-II", "III-IV", "V-VI"),
        None,
    ]
    assert [vocabulary.darkness_class(text) for text in "012345"] == list(reversed(roman))
    assert vocabulary.darkness_class("6") is None


def test_every_source_speaks_the_vocabulary() -> None:
    for source in SOURCES.values():
        assert source.licence in vocabulary.LICENCES
        assert source.modality in vocabulary.MODALITIES
        assert source.command
        assert source.mapping
        assert source.citation
        assert source.counts
