"""One request to an OpenAI-compatible server, and what its reply or its failure means.

The `openai` client writes the request and reads the reply. Reads the API key from the environment;
writes nothing.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dermaflux.captions.vlm import preflight
from dermaflux.captions.vlm.client import Finish, Request, Response, refuse_oversize
from dermaflux.errors import InputError
from dermaflux.params import Caption
from dermaflux.params.runtime import CaptionRuntime

if TYPE_CHECKING:
    import openai

LARGEST_IMAGE = 15_000_000
"""Bytes; hosted interfaces take data URLs of 20 MB, and Base64 adds a third."""
_RETRIABLE = {408, 409, 425, 429}
_MESSAGE_CHARACTERS = 200


class Retriable(Exception):
    """A failure that may pass; `retry_after` is the wait in seconds that the server asks for."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Unreachable(Retriable):
    """No connection could be opened."""


class Rejected(Exception):
    """Status and message of a request that will fail again however often it is sent."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status, self.message = status, message


class ChatCompletions:
    """The server's /chat/completions. Its coroutines belong to one event loop."""

    def __init__(self, section: Caption, runtime: CaptionRuntime) -> None:
        import openai

        self._section, self._runtime = section, runtime
        self._url = runtime.endpoint.rstrip("/")
        self._key = os.environ.get(runtime.api_key_variable) or None
        # The client would send what it finds in other OPENAI_ variables, and a placeholder as key.
        omitted = ["OpenAI-Organization", "OpenAI-Project"]
        omitted += [] if self._key else ["Authorization"]
        self._headers: Any = dict.fromkeys(omitted, openai.Omit())
        try:
            _ = urlsplit(self._url).port  # raises ValueError beyond 65535
            self._client = openai.AsyncOpenAI(
                base_url=self._url,
                api_key=self._key or "none",
                # The client's own retries know one request only, ignore a Retry-After over two
                # minutes and take a cut JSON document for an answer; `endpoint` retries instead.
                max_retries=0,
                # Its timeout is per read; `complete` limits the whole answer.
                timeout=None,
                http_client=openai.DefaultAsyncHttpxClient(
                    timeout=None,
                    follow_redirects=False,
                    trust_env=not _is_loopback(self._url),  # a proxy cannot reach this machine
                ),
            )
        except ValueError as error:
            raise InputError(preflight.unreachable(runtime, str(error))) from None

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def complete(self, request: Request, maximum_tokens: int) -> Response:
        """Send one request.

        Raises `Retriable`, `Rejected`, or `InputError` where every other request would fail too.
        """
        import openai

        messages: Any = [{"role": "user", "content": _content(request)}]
        try:
            async with asyncio.timeout(self._runtime.timeout_seconds):
                completion = await self._client.chat.completions.create(
                    model=self._section.model,
                    messages=messages,
                    max_tokens=maximum_tokens,
                    temperature=self._section.temperature,
                    extra_headers=self._headers,
                )
            return _response(completion, request)
        except TimeoutError:
            seconds = self._runtime.timeout_seconds
            raise Retriable(f"no answer within timeout_seconds {seconds:g}") from None
        except openai.APIConnectionError as error:
            raise _connection_failure(error) from None
        except openai.APIStatusError as error:
            raise self._status_failure(error) from None
        except (ValueError, IndexError, TypeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise Retriable(f"an unreadable answer ({reason[:_MESSAGE_CHARACTERS]})") from None

    async def models(self) -> list[str] | None:
        """Names of the models that the server offers; None where it does not list them."""
        import openai

        try:
            async with asyncio.timeout(self._runtime.timeout_seconds):
                models = self._client.models.list(extra_headers=self._headers)
                return [model.id async for model in models]
        except (openai.OpenAIError, TimeoutError, ValueError, TypeError, AttributeError):
            return None

    def _status_failure(self, error: openai.APIStatusError) -> Exception:
        status, message = error.status_code, _message(error.body, self._key)
        if status == 429 and "insufficient_quota" in error.response.text:
            return InputError(
                f"the account at {self._url} has no credit left ({message}); top it up and run "
                "again: all answers so far are stored"
            )
        if status in _RETRIABLE or status >= 500:
            wait = retry_after(error.response.headers.get("Retry-After"))
            return Retriable(f"HTTP {status}: {message}", wait)
        if status in (401, 403):
            has_key = self._key is not None
            return InputError(preflight.wrong_key(self._runtime, has_key, status, message))
        return Rejected(status, message)


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


def _content(request: Request) -> Any:
    """The user turn; the image travels as a data URL.

    Llama 3.2's template refuses a system message beside an image, so there is none.
    """
    if request.image is None:
        return request.text
    refuse_oversize(request.image)
    if len(request.image) > LARGEST_IMAGE:
        raise InputError(
            f"image {request.key[:12]} has {len(request.image):,} bytes, over the limit of "
            f"{LARGEST_IMAGE:,} a request; lower ingest.jpeg_quality"
        )
    kind = "png" if request.image.startswith(b"\x89PNG") else "jpeg"
    data = base64.b64encode(request.image).decode()
    return [
        {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{data}"}},
        {"type": "text", "text": request.text},
    ]


def _response(completion: Any, request: Request) -> Response:
    """The response in a completion; raises as attribute and index access do when there is none."""
    choice = completion.choices[0]
    text = choice.message.content or ""
    if isinstance(text, list):  # some servers answer in parts
        text = "".join(part.get("text", "") for part in text)
    # Servers that count nothing must not make a budget endless: 4 characters a token.
    usage = completion.usage
    prompt = getattr(usage, "prompt_tokens", None) or len(request.text) // 4 + 1
    completion_tokens = getattr(usage, "completion_tokens", None) or len(text) // 4 + 1
    finish: Finish = "stop"
    if choice.message.refusal or choice.finish_reason == "content_filter":
        finish, text = "refusal", text or str(choice.message.refusal or "")
    elif choice.finish_reason == "length":
        finish = "length"
    return Response(str(text), int(prompt), int(completion_tokens), finish)


def _message(body: object, secret: str | None) -> str:
    """What a server says went wrong: one line, short, never with the key in it."""
    while isinstance(body, dict):
        body = body.get("message") or body.get("error") or body.get("detail") or ""
    text = str(body or "")
    if secret:
        text = text.replace(secret, "***")
    return " ".join(text.split())[:_MESSAGE_CHARACTERS] or "no message"


def _connection_failure(error: openai.APIConnectionError) -> Retriable:
    import httpx2

    cause = error.__cause__ or error
    text = " ".join(str(cause).split())[:_MESSAGE_CHARACTERS]
    reason = f"{type(cause).__name__}: {text}" if text else type(cause).__name__
    never_connected = (httpx2.ConnectError, httpx2.UnsupportedProtocol, httpx2.InvalidURL)
    return (Unreachable if isinstance(cause, never_connected) else Retriable)(reason)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
