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
        ("CC BY 4.0 International", "CC-BY"),
        ("https://creativecommons.org/licenses/by-nc/4.0/", "CC-BY-NC"),
        ("creativecommons.org/publicdomain/zero/1.0/", "CC0"),
        ("CC BY-SA 4.0", None),
        ("https://creativecommons.org/licenses/by-sa/4.0/", None),
        ("", None),
    ],
)
def test_spellings_of_licences(text: str, expected: str | None) -> None:
    assert vocabulary.licence(text) == expected


PLACEHOLDERS = (
    "|   |NA|N/A|n/a|#N/A|#NA|nan|NaN|-NaN|<NA>|NaT|None|NULL|(null)|nil|\\N|unknown|UNK|Unknown.|"
    "n.a.|not available|not_available|Not Recorded|not specified|unspecified|missing|-|--|---|"
    "\u2013|\u2014|?|??|.|..|*|_|-1|-1.0|\u22121|-999|#VALUE!|#REF!|#DIV/0!|#NAME?|#NV|"
    "NONE_IDENTIFIED|none selected|no data|Unknown patient|[unknown]|'NA'|anonymized|"
    "prefer not to say|N/D"
)
VALUES = (
    "0|0.0|1|00|P00|P-1|10-1|nevus|nv|NV|n|Nat 1|naevus|na 2|other|none of the above|benign|no|yes|"
    "indeterminate|II|#12|ISIC_0000000|unknown primary melanoma|not a nevus|1 -1|-1 to 2"
)


def test_what_says_that_there_is_no_value_and_what_does_not() -> None:
    assert not vocabulary.is_placeholder("x" * 5000)
    assert [text for text in PLACEHOLDERS.split("|") if not vocabulary.is_placeholder(text)] == []
    assert [text for text in VALUES.split("|") if vocabulary.is_placeholder(text)] == []
    assert {vocabulary.diagnosis(text) for text in PLACEHOLDERS.split("|")} == {None}


def test_an_id_is_the_same_in_a_column_of_floats() -> None:
    same = {"101": ("101", "101.0", "101.", "101.00"), "007": ("007", "007.0"), "P7": ("P7",)}
    for value, spellings in same.items():
        assert {vocabulary.identifier(text) for text in spellings} == {value}
    kept = ("1.5", "12.1", "P1.0", "IP_0000000", "1e5")
    assert tuple(map(vocabulary.identifier, kept)) == kept
    assert {
        vocabulary.identifier(text) for text in (*PLACEHOLDERS.split("|"), "0", "0.0", "00")
    } == {None}
    assert {vocabulary.identifier(text, zero=True) for text in ("0", "0.0", "0.")} == {"0"}
    assert vocabulary.identifier("9" * 5000 + ".0") == "9" * 5000


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("train Train TRAINING training_set trainset train-split trainval", "train"),
        ("val VAL valid Validation validation_set dev Development tune tuning", "train"),
        ("test Test TESTING test_set testset holdout hold-out Held_Out hold_out_set", "test"),
        # Nobody can tell, and a test image must not get into training.
        ("eval evaluation external_validation query gallery 0 1 2.0 fold1 A both NA", None),
    ],
)
def test_parts_of_a_dataset(words: str, part: str | None) -> None:
    assert {word: vocabulary.part(word) for word in words.split()} == dict.fromkeys(
        words.split(), part
    )


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
    assert [vocabulary.darkness_class(text) for text in ("0.0", "5.")] == ["VI", "I"]
    assert {vocabulary.darkness_class(text) for text in ("6", "-1", "1.5", "9" * 5000)} == {None}


def test_every_source_speaks_the_vocabulary() -> None:
    for source in SOURCES.values():
        assert source.licence in vocabulary.LICENCES
        assert source.modality in vocabulary.MODALITIES
        assert source.command
        assert source.mapping
        assert source.citation
        assert source.counts
