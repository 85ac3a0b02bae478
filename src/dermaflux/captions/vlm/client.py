"""What every vision-language model is to the captioners: questions in, answers out, in order.

`llama` answers in process, `endpoint` through a server. Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from dermaflux.errors import InputError

LONGEST_SIDE = 4096
"""Pixels; corpus images have 512 at most, and vision models look at fewer than 2,000."""

Finish = Literal["stop", "length", "refusal"]


@dataclass(frozen=True)
class Question:
    """One turn of a user."""

    text: str
    image: bytes | None
    """Encoded JPEG or PNG; None asks without a picture."""
    key: str
    """Hex sha256 of what is asked about: of the image, or of the subject's name without one."""


@dataclass(frozen=True)
class Answer:
    """What the model said."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish: Finish
    """`length`: cut off at `caption.maximum_tokens`; `refusal`: the server itself refused."""


class Vision(Protocol):
    """A vision-language model, wherever it runs."""

    name: str
    """Model and revision; part of the key under which an answer is kept."""

    def check(self) -> None:
        """Preflight, before any bulk work; `InputError` when the model cannot answer."""

    def answers(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """One answer per question, in order, lazily and in bounded memory."""


def refuse_oversize(image: bytes) -> None:
    """Raise `InputError` for a side beyond `LONGEST_SIDE` or a header that says no size."""
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(image)) as picture:
            width, height = picture.size
    except (OSError, Image.DecompressionBombError) as error:
        raise InputError(
            f"an image to caption cannot be opened ({error}); let the stage `ingest` check it"
        ) from None
    if max(width, height) > LONGEST_SIDE:
        raise InputError(
            f"an image to caption has {width} x {height} pixels, over the limit of {LONGEST_SIDE} "
            "a side; let the stage `ingest` resize it"
        )
