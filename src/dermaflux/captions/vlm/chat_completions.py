"""The wire format of OpenAI-compatible servers: a question's request, and what a reply means.

Specification: https://platform.openai.com/docs/api-reference/chat. Reads and writes nothing.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from dermaflux.captions.vlm.client import Answer, Finish, Question, refuse_oversize
from dermaflux.errors import InputError

LARGEST_IMAGE = 20_000_000
"""Bytes of a data URL that hosted interfaces take."""
_URL = json.dumps("\0url\0")
_MESSAGE_CHARACTERS = 200


class Malformed(Exception):
    """A reply of status 200 that is no answer, such as JSON cut off."""


def request_body(question: Question, model: str, maximum_tokens: int, temperature: float) -> bytes:
    """JSON of POST /chat/completions; the image travels as a data URL.

    Llama 3.2's template refuses a system message beside an image, so there is none.
    """
    content: Any = question.text
    if question.image is not None:
        content = [
            {"type": "image_url", "image_url": {"url": "\0url\0"}},
            {"type": "text", "text": question.text},
        ]
    frame = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": maximum_tokens,
            "temperature": temperature,
        }
    ).encode()
    if question.image is None:
        return frame
    refuse_oversize(question.image)
    if len(question.image) * 4 // 3 > LARGEST_IMAGE:
        raise InputError(
            f"image {question.key[:12]} has {len(question.image):,} bytes, which is more than the "
            f"{LARGEST_IMAGE * 3 // 4:,} a request may hold; lower ingest.jpeg_quality"
        )
    # Base64 needs no escaping, and so no pass of the JSON encoder over it.
    before, after = frame.split(_URL.encode(), 1)
    kind = b"png" if question.image.startswith(b"\x89PNG") else b"jpeg"
    url = b'"data:image/' + kind + b";base64," + base64.b64encode(question.image) + b'"'
    return b"".join((before, url, after))


def answer_of(reply: bytes, question: Question) -> Answer:
    """The answer in a reply of status 200; raises `Malformed` when there is none."""
    try:
        content = json.loads(reply)
        choice = content["choices"][0]
        message = choice["message"]
        text = message.get("content") or ""
        if isinstance(text, list):  # some servers answer in parts
            text = "".join(part.get("text", "") for part in text)
        refusal, reason = message.get("refusal"), choice.get("finish_reason")
        usage = content.get("usage") or {}
        # Servers that count nothing must not make a budget endless: 4 characters a token.
        prompt = int(usage.get("prompt_tokens") or len(question.text) // 4 + 1)
        completion = int(usage.get("completion_tokens") or len(text) // 4 + 1)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise Malformed(f"{type(error).__name__}: {error}") from None
    finish: Finish = "stop"
    if refusal or reason == "content_filter":
        finish, text = "refusal", text or str(refusal or "")
    elif reason == "length":
        finish = "length"
    return Answer(str(text), prompt, completion, finish)


def message_of(reply: bytes, secret: str | None) -> str:
    """What a server says went wrong: one line, short, never with the key in it."""
    text = reply[:20_000].decode(errors="replace")
    try:
        found: Any = json.loads(reply)
        while isinstance(found, dict):
            found = found.get("message") or found.get("error") or found.get("detail") or ""
        text = str(found) or text
    except ValueError:
        pass
    if secret:
        text = text.replace(secret, "***")
    text = " ".join(text.split())
    return text[:_MESSAGE_CHARACTERS] or "no message"


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or as a date; None without one."""
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
