"""Descriptions by a vision-language model, through the quality gate: asked, asked again, flagged.

Reads and writes nothing; what the model costs and keeps is the business of the `Vision` behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dermaflux.captions.text.quality import ABC, VISUAL_ATTRIBUTES, Fault, faults
from dermaflux.captions.vlm import prompts
from dermaflux.captions.vlm.client import Answer, Question, Vision
from dermaflux.captions.vlm.visual_attributes import Subject, VisualAttributes

Chain = Literal["llama", "visual_attributes"]

INSIST = (
    "Answer in English, in at most six complete sentences. Describe the asymmetry, the border and "
    "the color, and do not name a diagnosis."
)
"""Follows the published question on the second try. The second try has to differ: at temperature 0
the same question has the same answer."""
INSIST_ATTRIBUTES = INSIST.replace(
    "asymmetry, the border and the color", "shape, the size, the texture and the color"
)
_INSISTING = {prompts.DESCRIBE: INSIST, prompts.FINAL_DESCRIPTION: INSIST_ATTRIBUTES}
_ASKED: dict[Chain, tuple[Fault, ...]] = {"llama": ABC, "visual_attributes": VISUAL_ATTRIBUTES}
"""What the question of a chain asks for, and its answer has to name."""


@dataclass(frozen=True)
class Lesion:
    """An image of the corpus and what is known of it."""

    image_id: str
    label: str
    subject: Subject


@dataclass(frozen=True)
class Description:
    """What is written down for an image."""

    text: str
    flags: tuple[str, ...]
    """Faults that the second try did not mend."""
    prompt_tokens: int
    """Of both tries; what the image cost."""
    completion_tokens: int


class Insisting:
    """A `Vision` that insists in the question whose answer becomes the caption."""

    def __init__(self, vision: Vision) -> None:
        self.name = vision.name
        self._vision = vision

    def check(self) -> None:
        """Preflight of the model behind."""
        self._vision.check()

    def answers(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """Answers in order."""
        return self._vision.answers(map(_insisting, questions))


def _insisting(question: Question) -> Question:
    for last, addition in _INSISTING.items():
        if question.text.endswith(last):
            return replace(question, text=f"{question.text} {addition}")
    return question


def describe(
    vision: Vision,
    chain: Chain,
    lesions: Sequence[Lesion],
    advance: Callable[[int], None] = lambda images: None,
) -> list[Description]:
    """One description per lesion, in order; those with faults were asked for twice.

    `advance(1)` is called for each first answer.
    """
    firsts = []
    for answer in _answers(vision, chain, lesions):
        firsts.append(answer)
        advance(1)
    found = [
        _checked(answer, one.label, chain) for answer, one in zip(firsts, lesions, strict=True)
    ]
    faulty = [place for place, one in enumerate(found) if one.flags]
    seconds = _answers(Insisting(vision), chain, [lesions[place] for place in faulty])
    for place, answer in zip(faulty, seconds, strict=True):
        found[place] = _better(found[place], _checked(answer, lesions[place].label, chain))
    return found


def _answers(vision: Vision, chain: Chain, lesions: Sequence[Lesion]) -> Iterator[Answer]:
    if chain == "visual_attributes":
        return VisualAttributes(vision).answers(one.subject for one in lesions)
    return vision.answers(
        Question(prompts.abc_question(one.label), one.subject.image, one.subject.key)
        for one in lesions
    )


def _checked(answer: Answer, label: str, chain: Chain) -> Description:
    return Description(
        answer.text,
        faults(answer.text, label, answer.finish, _ASKED[chain]),
        answer.prompt_tokens,
        answer.completion_tokens,
    )


def _better(first: Description, second: Description) -> Description:
    """The one with fewer faults, the first of equals, at the price of both."""
    chosen = second if len(second.flags) < len(first.flags) else first
    return replace(
        chosen,
        prompt_tokens=first.prompt_tokens + second.prompt_tokens,
        completion_tokens=first.completion_tokens + second.completion_tokens,
    )
