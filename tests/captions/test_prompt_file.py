"""The user's own bank: what a file may say, and which files are refused before sampling."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dermaflux.captions.text import prompt_file
from dermaflux.captions.text.prompt_bank import Prompt, PromptBank
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError

LABELS = {
    "nevus": {"benign"},
    "melanoma": {"malignant"},
    "actinic keratosis": {"benign", "malignant"},
}
"""Diagnosis -> labels of its training images."""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.csv"
    path.write_bytes(text.encode())
    return path


def bank(path: Path, by: str = "label", classes: tuple[str, ...] = CLASSES) -> PromptBank:
    return prompt_file.bank(prompt_file.read(path), by, classes, LABELS, path)  # type: ignore[arg-type]


def test_prompts_are_those_of_the_file_with_their_classes(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "\N{BYTE ORDER MARK}Diagnosis, prompt ,LABEL\r\n"
        'Naevus,"small, round\n and brown",benign\r\n\r\n'
        ",large,Malignant\nmelanoma,a line\N{LINE SEPARATOR}break,malignant\n",
    )
    assert bank(path).prompts == {
        "benign": (Prompt("small, round and brown", "benign", "nevus"),),
        "malignant": (
            Prompt("large", "malignant", None),
            Prompt("a line break", "malignant", "melanoma"),
        ),
    }
    of_diagnosis = written(tmp_path, "prompt,diagnosis\nsmall,nevus\nlarge,melanoma\n")
    assert bank(of_diagnosis, "diagnosis", ("melanoma",)).prompts == {
        "melanoma": (Prompt("large", "malignant", "melanoma"),)
    }


@pytest.mark.parametrize(
    ("text", "by", "expected"),
    [
        ("", "label", "is empty; write the header"),
        ("prompt,label\n", "label", "has a header and no prompt"),
        ("prompt;label\na;benign\n", "label", "header of .* separated by commas"),
        ("prompt,lable\na,benign\n", "label", "'prompt,lable' but must name"),
        ("prompt,label,label\na,benign,benign\n", "label", "correct the first line"),
        ("prompt,label\na,b,benign\n", "label", "line 2 has 3 values and the header 2"),
        ("prompt,label\n ,benign\n", "label", "line 2: the prompt has 0 characters"),
        ("prompt,label\na,benign\nb,malignent\n", "label", "line 3: the label 'malignent'"),
        ('prompt,label\n"a,benign\n', "label", "line 2: unexpected end of data; put a prompt"),
        ("prompt,label\na,benign\n", "label", "no prompt of the class 'malignant' among its 1; a"),
        ("prompt,label\na,benign\n", "diagnosis", "line 2 has no diagnosis but .*conditions"),
        ("prompt,diagnosis\na,nevus\n", "label", "line 2 has no label but"),
        ("prompt,diagnosis\na,nevsu\n", "diagnosis", "diagnosis 'nevsu'; write nevus"),
        ("prompt,label,diagnosis\na,malignant,nevus\n", "label", "images of nevus are benign but"),
        ("prompt,diagnosis\na,actinic keratosis\n", "diagnosis", "are benign and malignant, so a"),
    ],
)
def test_a_bad_file_is_refused_with_one_sentence(
    tmp_path: Path, text: str, by: str, expected: str
) -> None:
    classes = CLASSES if by == "label" else ("nevus",)
    with pytest.raises(InputError, match=expected) as raised:
        bank(written(tmp_path, text), by, classes)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"prompt,label\n\xff,benign\n", None])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mine.csv"
    if content is not None:
        path.write_bytes(content)
    expected = "cannot be read .*correct the path" if content is None else "not UTF-8 text .line 2"
    with pytest.raises(InputError, match=expected):
        prompt_file.read(path)


def test_a_bank_that_describes_test_images_is_refused(tmp_path: Path) -> None:
    """Sentences that training images have as well belong to nobody."""
    training = ["This is an image containing a benign lesion. A smooth border.", "Round."]
    test = [
        "This is an image containing a malignant lesion. A  jagged border.",
        "This is an image containing a malignant lesion. A smooth border.",
        "This is an image containing a malignant lesion.",
    ]
    own = ["a smooth border.", "Another", "This is an image containing a malignant lesion."]
    path = written(tmp_path, "prompt,label\n" + "".join(f"{text},malignant\n" for text in own))
    prompt_file.refuse_test_descriptions(prompt_file.read(path), training, test, path)
    held = "A Jagged  border."
    path.write_text(path.read_text() + f"{held},malignant\n")
    with pytest.raises(InputError, match=r"holds 1 of 4 prompts .* line 5: 'A Jagged border\.'; "):
        prompt_file.refuse_test_descriptions(prompt_file.read(path), training, test, path)


def test_a_class_is_drawn_by_image_or_by_distinct_text() -> None:
    prompts = [Prompt("often", "benign", "a")] * 6 + [Prompt("often", "malignant", "a")] * 2
    prompts += [Prompt("once", "benign", "a"), Prompt("rarely", "benign", "a")]
    for by_text, share in ((False, 0.8), (True, 1 / 3)):
        drawn = PromptBank({"a": tuple(prompts)}, by_text)
        found = [drawn.draw("a", 3, index) for index in range(3000)]
        texts = Counter(prompt.text for prompt in found)
        assert abs(texts["often"] / 3000 - share) < 0.035
        often = Counter(prompt.label for prompt in found if prompt.text == "often")
        assert abs(often["malignant"] / texts["often"] - 0.25) < 0.06
