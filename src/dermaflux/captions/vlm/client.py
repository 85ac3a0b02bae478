"""The interface of a vision-language model: requests in, responses out, in the same order.

`transformers_vlm` runs one in process, `endpoint` calls one on a server. Reads and writes nothing.
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
class Request:
    """One user turn."""

    text: str
    image: bytes | None
    """Encoded JPEG or PNG; None sends text only."""
    key: str
    """Hex SHA-256 of the image, or of the subject's name when there is no image."""


@dataclass(frozen=True)
class Response:
    """What the model wrote."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish: Finish
    """`length`: cut off at `caption.maximum_tokens`; `refusal`: the server itself refused."""


@dataclass(frozen=True)
class LesionImage:
    """An image to describe and what is known about it."""

    encoded: bytes
    """JPEG or PNG."""
    key: str
    """Hex SHA-256 of `encoded`."""
    label: str
    modality: str
    """As in the table: dermoscopic, clinical or tile."""


class VLM(Protocol):
    """A vision-language model, wherever it runs."""

    @property
    def name(self) -> str:
        """Model and revision; part of the key under which a response is cached."""

    def check(self) -> None:
        """Preflight, before any bulk work; `InputError` when the model cannot respond."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        """One response per request, in order, lazily and in bounded memory."""


def refuse_oversize(image: bytes) -> None:
    """Raise `InputError` for an image that cannot be opened or has a side over `LONGEST_SIDE`."""
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(image)) as opened:
            width, height = opened.size
    except (OSError, Image.DecompressionBombError) as error:
        raise InputError(
            f"an image to caption cannot be opened ({error}); let the stage `ingest` check it"
        ) from None
    if max(width, height) > LONGEST_SIDE:
        raise InputError(
            f"an image to caption has {width} x {height} pixels, over the limit of {LONGEST_SIDE} "
            "a side; let the stage `ingest` resize it"
        )
