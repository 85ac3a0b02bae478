"""VAP-Diffusion's three prompts about an image, for any `VLM`.

First impression with the image; second thought without it, once per modality; final description
from both (section 2.2 of the paper). Reads and writes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from dermaflux.captions.vlm import prompts
from dermaflux.captions.vlm.client import VLM, LesionImage, Request, Response
from dermaflux.captions.vlm.questions import PUBLISHED, Questions
from dermaflux.core.hashing import sha256


class VisualAttributes:
    """The prompt chain. `thoughts` holds the second thought per modality, tokens included."""

    def __init__(self, vlm: VLM, window: int = 1000, questions: Questions = PUBLISHED) -> None:
        # The final prompts wait for the first impressions of one window, so that at most one
        # stream of responses is open: two streams would share a server's connections.
        self._vlm, self._window, self._questions = vlm, window, questions
        self.thoughts: dict[str, Response] = {}

    def generate(self, images: Iterable[LesionImage]) -> Iterator[Response]:
        """The final descriptions, in order; memory holds one window of images.

        Tokens are those of the two prompts about the image. A second thought belongs to no image
        and is counted in `thoughts`: charged to the first image that needed it, a resumed run
        would differ from an unbroken one.
        """
        stream, asked = iter(images), self._questions
        while group := list(itertools.islice(stream, self._window)):
            self._think_twice(dict.fromkeys(image.modality for image in group))
            impressions = list(
                self._vlm.generate(
                    Request(asked.first_impression, image.encoded, image.key) for image in group
                )
            )
            finals = self._vlm.generate(
                Request(
                    prompts.final_prompt(
                        first.text,
                        self.thoughts[image.modality].text,
                        asked.final_description,
                        asked.modality,
                    ),
                    image.encoded,
                    image.key,
                )
                for image, first in zip(group, impressions, strict=True)
            )
            for first, final in zip(impressions, finals, strict=True):
                yield Response(
                    final.text,
                    first.prompt_tokens + final.prompt_tokens,
                    first.completion_tokens + final.completion_tokens,
                    final.finish,
                )

    def _think_twice(self, modalities: Iterable[str]) -> None:
        new = [modality for modality in modalities if modality not in self.thoughts]
        requests = [
            Request(self._questions.second_thought, None, sha256(modality.encode()))
            for modality in new
        ]
        for modality, response in zip(new, self._vlm.generate(requests), strict=True):
            self.thoughts[modality] = response
