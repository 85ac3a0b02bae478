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


SPELLINGS = {
    "I": "i 1 1.0 FST1 Type-1 Fitzpatrick_I",
    "II": "II 2 2. 2,0 2.000e+00 FST2 FST-II FST_II Ⅱ 2/2",
    "III": "iii 3.0 (III) TypeIII Fitzpatrick's·3 FST·III skin·type·III",
    "IV": "IV 4.0 phototype·4 photo-type·IV Skin·Type:·4 skin_type_4 IV·type",
    "V": "V 5. fitzpatrick·v Fitz.·5 FST\u20115 Fitzpatrick·skin·type·V",
    "VI": "vi 6.0 VI·",
    "I-II": "12 12.0 I-II 1-2 1/2 I\u2013II I·to·II FST12 FST1-FST2 Type·I/Type·II 1.0-2.0",
    "III-IV": "34 34.0 III-IV 3\u20144 3·&·4 III·and·IV III·or·IV",
    "V-VI": "56 V-VI V/VI 5\u20126 fst·v-vi",
    None: "0 7.0 1.5 VII -1 \u22121 -2 FST·-1 type·-1 II-III 4-5 I-III 13 21 78 1,2 light IIII "
    "MST5 12.5 unknown NONE_IDENTIFIED NA III·(4) III·(3)",
}
"""Type -> spellings, with · for a blank."""


@pytest.mark.parametrize("tone", SPELLINGS)
def test_skin_tone_vocabularies_become_one(tone: str | None) -> None:
    words = [word.replace("·", " ") for word in str(SPELLINGS[tone]).split(" ")]
    assert {word: vocabulary.fitzpatrick(word) for word in words} == dict.fromkeys(words, tone)


def test_darkness_classes_run_the_other_way() -> None:
    roman = ("I", "II", "III", "IV", "V", "VI")
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
