"""What can be wrong with a server, in one sentence each, before many requests are sent.

Reads and writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dermaflux.params import Caption
from dermaflux.params.runtime import CaptionRuntime

_TOO_LARGE = re.compile(r"too (large|big|long)|exceed|context length|maximum .{0,30}(size|pixel)")
_NO_VISION = re.compile(r"image|vision|multi-?modal|modalit")
_UNKNOWN_MODEL = re.compile(r"model.{0,80}(not (found|exist)|does not exist|unknown|not available)")
_LISTED = 8  # models listed in a sentence


def unreachable(runtime: CaptionRuntime, reason: str) -> str:
    """Nobody listens, or the name has no address."""
    return (
        f"runtime.caption.endpoint {runtime.endpoint} cannot be reached ({reason}); start the "
        "server there or correct runtime.caption.endpoint"
    )


def wrong_key(runtime: CaptionRuntime, has_key: bool, status: int, message: str) -> str:
    """The API key is missing or refused; the sentence names its variable only."""
    variable = runtime.api_key_variable
    if not has_key:
        return (
            f"{runtime.endpoint} requires an API key (HTTP {status}) and the environment variable "
            f"{variable} is not set; set it, or name another in runtime.caption.api_key_variable"
        )
    return (
        f"{runtime.endpoint} refused the API key in the environment variable {variable} "
        f"(HTTP {status}: {message}); set it to a valid key"
    )


def rejected(
    section: Caption,
    runtime: CaptionRuntime,
    status: int,
    message: str,
    image_bytes: int,
    models: Sequence[str] | None,
) -> str:
    """The server rejected the test image; `models` are those it offers, where it lists them."""
    if is_unknown_model(status, message):
        return _unknown_model(section, runtime, message, models)
    # "At most 0 images" and "image too large" both mention images: size first.
    if status == 413 or _TOO_LARGE.search(message.lower()):
        return (
            f"{runtime.endpoint} refused an image of {image_bytes:,} bytes as too large "
            f"(HTTP {status}: {message}); raise the server's limit (vLLM: --max-model-len)"
        )
    if _NO_VISION.search(message.lower()):
        return _no_vision(section, runtime, message)
    return (
        f"{runtime.endpoint} refuses requests (HTTP {status}: {message}); check the server or "
        "correct caption.model"
    )


def failed(section: Caption, runtime: CaptionRuntime, reason: str) -> str:
    """Every attempt failed."""
    if _NO_VISION.search(reason.lower()):  # Ollama reports it with status 500
        return _no_vision(section, runtime, reason)
    return (
        f"{runtime.endpoint} failed {runtime.retries + 1} times in a row ({reason}); check the "
        "server or raise runtime.caption.retries"
    )


def is_unknown_model(status: int, message: str) -> bool:
    """Whether the server does not have the model."""
    return status == 404 or bool(_UNKNOWN_MODEL.search(message.lower()))


def _unknown_model(
    section: Caption, runtime: CaptionRuntime, message: str, models: Sequence[str] | None
) -> str:
    if models is None:
        return (
            f"{runtime.endpoint} has no /chat/completions ({message}); runtime.caption.endpoint "
            "must be the address of an OpenAI-compatible server, up to and including /v1"
        )
    more = len(models) - _LISTED
    listed = ", ".join(models[:_LISTED]) or "none"
    return (
        f"{runtime.endpoint} does not serve caption.model {section.model!r} but "
        f"{listed}{f' and {more} more' if more > 0 else ''}; set caption.model to one of them"
    )


def _no_vision(section: Caption, runtime: CaptionRuntime, message: str) -> str:
    return (
        f"caption.model {section.model!r} at {runtime.endpoint} takes no images ({message}); "
        "set caption.model to a vision-language model"
    )
