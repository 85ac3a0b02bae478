"""Descriptions by a vision-language model: generate, check, retry faulty ones once, then flag.

Reads and writes nothing; cost and caching belong to the `VLM` passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dermaflux.captions.text.quality import ABC, faults
from dermaflux.captions.vlm import prompts
from dermaflux.captions.vlm.client import VLM, LesionImage, Request, Response
from dermaflux.captions.vlm.questions import PUBLISHED, Questions
from dermaflux.captions.vlm.visual_attributes import VisualAttributes

PromptProtocol = Literal["llama", "visual_attributes"]
"""DermaFlux's single prompt, or VAP-Diffusion's three."""

RETRY_INSTRUCTION = (
    "Answer in English, in at most six complete sentences. Describe the asymmetry, the border and "
    "the color, and do not name a diagnosis."
)
"""Appended to the published prompt on the second try. The second try has to differ: at temperature
0 the same prompt has the same response."""


@dataclass(frozen=True)
class Description:
    """The text chosen for an image."""

    text: str
    flags: tuple[str, ...]
    """Faults that the second try did not fix."""
    prompt_tokens: int
    """Of both tries: what the image cost."""
    completion_tokens: int


def retry_attributes(questions: Questions) -> str:
    """The same for VAP-Diffusion's question 3: what it asks for."""
    names = [f"the {name}".replace("colour", "color") for name in questions.attributes]
    listed = " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
    first, _, last = RETRY_INSTRUCTION.partition("the asymmetry, the border and the color")
    return f"{first}{listed or 'what is seen'}{last}"


class RetryPrompt:
    """A `VLM` that adds the retry instruction to the prompt whose response becomes the caption."""

    def __init__(self, vlm: VLM, questions: Questions = PUBLISHED) -> None:
        self.name = vlm.name
        self._vlm = vlm
        self._instructions = {
            prompts.DESCRIBE: RETRY_INSTRUCTION,
            questions.final_description: retry_attributes(questions),
        }

    def check(self) -> None:
        """Preflight of the wrapped model."""
        self._vlm.check()

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        """Responses in order."""
        return self._vlm.generate(map(self._with_instruction, requests))

    def _with_instruction(self, request: Request) -> Request:
        for prompt, instruction in self._instructions.items():
            if request.text.endswith(prompt):
                return replace(request, text=f"{request.text} {instruction}")
        return request


def describe(
    vlm: VLM,
    protocol: PromptProtocol,
    images: Sequence[LesionImage],
    advance: Callable[[int], None] = lambda images: None,
    questions: Questions = PUBLISHED,
) -> list[Description]:
    """One description per image, in order; faulty ones were requested twice.

    `advance(1)` is called for each first response; `questions` are those of `visual_attributes`.
    """
    first_tries = []
    for response in _generate(vlm, protocol, images, questions):
        first_tries.append(response)
        advance(1)
    descriptions = [
        _checked(response, image.label, protocol, questions)
        for response, image in zip(first_tries, images, strict=True)
    ]
    faulty = [index for index, description in enumerate(descriptions) if description.flags]
    again = [images[index] for index in faulty]
    second_tries = _generate(RetryPrompt(vlm, questions), protocol, again, questions)
    for index, response in zip(faulty, second_tries, strict=True):
        second = _checked(response, images[index].label, protocol, questions)
        descriptions[index] = _better(descriptions[index], second)
    return descriptions


def _generate(
    vlm: VLM, protocol: PromptProtocol, images: Sequence[LesionImage], questions: Questions
) -> Iterator[Response]:
    if protocol == "visual_attributes":
        return VisualAttributes(vlm, questions=questions).generate(images)
    return vlm.generate(
        Request(prompts.abc_prompt(image.label), image.encoded, image.key) for image in images
    )


def _checked(
    response: Response, label: str, protocol: PromptProtocol, questions: Questions
) -> Description:
    """The response with what it lacks of what its prompt asked for, and other faults."""
    required, known = (ABC, True)
    if protocol == "visual_attributes":
        required, known = questions.required, questions.names_malignancy
    return Description(
        response.text,
        faults(response.text, label if known else None, response.finish, required),
        response.prompt_tokens,
        response.completion_tokens,
    )


def _better(first: Description, second: Description) -> Description:
    """The one with fewer faults, the first if equal, at the price of both."""
    chosen = second if len(second.flags) < len(first.flags) else first
    return replace(
        chosen,
        prompt_tokens=first.prompt_tokens + second.prompt_tokens,
        completion_tokens=first.completion_tokens + second.completion_tokens,
    )
