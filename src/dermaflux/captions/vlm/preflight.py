"""What can be wrong with a server, one sentence each, before many requests are sent.

Reads and writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dermaflux.params import Caption

_TOO_LARGE = re.compile(r"too (large|big|long)|exceed|context length|maximum .{0,30}(size|pixel)")
_NO_VISION = re.compile(r"image|vision|multi-?modal|modalit")
_NO_MODEL = re.compile(r"model.{0,80}(not (found|exist)|does not exist|unknown|not available)")
_NAMED = 8  # models listed in a sentence


def unreachable(section: Caption, why: str) -> str:
    """Nobody listens, or the name has no address."""
    return (
        f"caption.endpoint {section.endpoint} cannot be reached ({why}); start the server there "
        "or correct caption.endpoint"
    )


def wrong_key(section: Caption, given: bool, status: int, message: str) -> str:
    """The key is missing or refused; it is named by its variable only."""
    variable = section.api_key_variable
    if not given:
        return (
            f"{section.endpoint} wants a key (HTTP {status}) and the environment variable "
            f"{variable} is not set; set it, or name another in caption.api_key_variable"
        )
    return (
        f"{section.endpoint} refused the key in the environment variable {variable} "
        f"(HTTP {status}: {message}); set it to a valid key"
    )


def refused(
    section: Caption, status: int, message: str, image_bytes: int, models: Sequence[str] | None
) -> str:
    """The server refused an image for good; `models` are those it offers, where it says."""
    if is_no_model(status, message):
        return _no_model(section, message, models)
    # "At most 0 images" and "image too large" both speak of images: size first.
    if status == 413 or _TOO_LARGE.search(message.lower()):
        return (
            f"{section.endpoint} refused an image of {image_bytes:,} bytes as too large "
            f"(HTTP {status}: {message}); raise the server's limit (vLLM: --max-model-len)"
        )
    if _NO_VISION.search(message.lower()):
        return _no_vision(section, message)
    return (
        f"{section.endpoint} refuses requests (HTTP {status}: {message}); see to the server or "
        "correct caption.model"
    )


def failed(section: Caption, why: str) -> str:
    """The server failed each time it was asked."""
    if _NO_VISION.search(why.lower()):  # Ollama says so with status 500
        return _no_vision(section, why)
    return (
        f"{section.endpoint} failed {section.retries + 1} times in a row ({why}); see to the "
        "server or raise caption.retries"
    )


def is_no_model(status: int, message: str) -> bool:
    """Whether the server does not have the model."""
    return status == 404 or bool(_NO_MODEL.search(message.lower()))


def _no_model(section: Caption, message: str, models: Sequence[str] | None) -> str:
    if models is None:
        return (
            f"{section.endpoint} answers no /chat/completions ({message}); caption.endpoint must "
            "be the address of an OpenAI-compatible server, up to and with /v1"
        )
    more = len(models) - _NAMED
    named = ", ".join(models[:_NAMED]) or "none"
    return (
        f"{section.endpoint} does not serve caption.model {section.model!r} but "
        f"{named}{f' and {more} more' if more > 0 else ''}; set caption.model to one of them"
    )


def _no_vision(section: Caption, message: str) -> str:
    return (
        f"caption.model {section.model!r} at {section.endpoint} takes no images ({message}); "
        "set caption.model to a vision-language model"
    )
