"""VAP-Diffusion's three questions about an image, asked of any `Vision`.

First impression with the image; second thought without it, once per modality; final description
from both (section 2.2 of the paper). Reads and writes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dermaflux.captions.vlm import prompts
from dermaflux.captions.vlm.client import Answer, Question, Vision
from dermaflux.core.hashing import sha256


@dataclass(frozen=True)
class Subject:
    """An image to describe."""

    key: str
    """Hex sha256 of the encoded image."""
    image: bytes
    modality: str
    """As in the table: dermoscopic, clinical or tile."""


class VisualAttributes:
    """The chain. `thoughts` holds the second thought per modality, its tokens included."""

    def __init__(self, vision: Vision, window: int = 1000) -> None:
        # The final questions wait for the first impressions of one window, so that at most one
        # stream of answers is open: a server's connections are never shared between two.
        self._vision, self._window = vision, window
        self.thoughts: dict[str, Answer] = {}

    @property
    def name(self) -> str:
        """Of the model asked."""
        return self._vision.name

    def check(self) -> None:
        """The model's own preflight."""
        self._vision.check()

    def answers(self, subjects: Iterable[Subject]) -> Iterator[Answer]:
        """The final descriptions, in order; memory holds one window of images.

        Tokens are those of the two questions about the image. A second thought belongs to no image
        and is counted in `thoughts`: charged to the first image that needed it, a continued run
        would differ from an unbroken one.
        """
        stream = iter(subjects)
        while group := list(itertools.islice(stream, self._window)):
            self._think_twice(dict.fromkeys(one.modality for one in group))
            impressions = list(
                self._vision.answers(
                    Question(prompts.FIRST_IMPRESSION, one.image, one.key) for one in group
                )
            )
            finals = self._vision.answers(
                Question(
                    prompts.final_question(first.text, self.thoughts[one.modality].text),
                    one.image,
                    one.key,
                )
                for one, first in zip(group, impressions, strict=True)
            )
            for first, final in zip(impressions, finals, strict=True):
                yield Answer(
                    final.text,
                    first.prompt_tokens + final.prompt_tokens,
                    first.completion_tokens + final.completion_tokens,
                    final.finish,
                )

    def _think_twice(self, modalities: Iterable[str]) -> None:
        new = [modality for modality in modalities if modality not in self.thoughts]
        questions = [
            Question(prompts.THINK_TWICE, None, sha256(modality.encode())) for modality in new
        ]
        for modality, answer in zip(new, self._vision.answers(questions), strict=True):
            self.thoughts[modality] = answer
