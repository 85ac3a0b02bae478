"""`ingest.own[].labels`: YAML numbers and truth values as keys, and words that contradict."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from dermaflux.errors import InputError
from dermaflux.params import load
from dermaflux.params.label_words import label_word

DEMO = Path(__file__).parents[2] / "params.yaml"


def labels(text: str) -> dict[str, str]:
    """What a parameter file with these labels gives."""
    raw = YAML(typ="safe").load(DEMO.read_text())
    own = {"name": "clinic", "folder": "ours", "labels": YAML(typ="safe").load(text)}
    raw["ingest"]["own"] = [own]
    return dict(load.parse(raw).ingest.own[0].labels)


@pytest.mark.parametrize(
    ("text", "benign", "malignant"),
    [
        (
            "{0: benign, 1: malignant}",
            "0 0.0 00 false False FALSE no 0. 0,0 0.000e+00",
            "1 1.0 YES",
        ),
        ("{'0': benign, '1.0': malignant}", "0 0.0", "1 1.0 TRUE true 1.000e+00"),
        ("{0.0: benign, 1.0: malignant}", "0 0.0", "1 1.0"),
        ("{false: benign, true: malignant}", "False 0", "True 1.0"),
        ("{no: benign, yes: malignant}", "No NO", "Yes yes"),
        ("{2: benign, 3: malignant}", "2 2.0", "3 03"),
        ("{Naevus: benign, MM: malignant}", "naevus NAEVUS", "mm Mm"),
        ("{NA: benign, .nan: malignant}", "na NA", "nan NaN"),
    ],
)
def test_keys_of_any_kind_mean_the_words_of_a_table(text: str, benign: str, malignant: str) -> None:
    known = {label_word(word): label for word, label in labels(text).items()}
    assert {known.get(label_word(word)) for word in benign.split()} == {"benign"}
    assert {known.get(label_word(word)) for word in malignant.split()} == {"malignant"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{0: benign, '0.0': malignant}", "labels says 0: 'benign' and '0.0': 'malignant', which"),
        ("{1: benign, 'True': malignant}", "labels says 1: 'benign' and 'True': 'malignant'"),
        ("{MEL: malignant, mel: benign}", "labels says 'MEL': 'malignant' and 'mel': 'benign'"),
        ("{~: benign}", "labels has the key None, which is not text; put it in quotes"),
        ("{2020-01-01: benign}", "labels has the key datetime.date(2020, 1, 1), which is not text"),
        ("{mel: cancer}", "ingest.own.0.labels.mel is 'cancer' but should be 'benign', 'malig"),
        ("[mel]", "ingest.own.0.labels is ['mel'] but should be a valid dictionary"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_one_sentence(text: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        labels(text)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_words_that_repeat_with_one_label_are_no_contradiction() -> None:
    assert labels("{1: malignant, '1.0': malignant, 0: benign}")["1"] == "malignant"
