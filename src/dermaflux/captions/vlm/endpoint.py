"""A vision-language model behind an OpenAI-compatible server: vLLM, `transformers serve`, Ollama...

Many requests are open at a time, answers come back in the order of the questions, and memory is
bounded by the number of open requests. Reads the key from the environment; writes nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dermaflux.captions.vlm import chat_completions as wire
from dermaflux.captions.vlm import preflight
from dermaflux.captions.vlm.client import Answer, Question
from dermaflux.errors import InputError
from dermaflux.params import Caption

if TYPE_CHECKING:
    import aiohttp

Received = Callable[[Question, Answer], None]

_LONGEST_DELAY = 60.0  # seconds of back-off; a longer Retry-After is honoured
_LONGEST_WAIT = 3600.0  # seconds of Retry-After above which waiting is no use
_PREFLIGHT_TOKENS = 16  # the least that hosted interfaces accept
_REFUSALS_IN_A_ROW = 50  # requests refused one by one, after which all will be
_TRY_AGAIN = {408, 409, 425, 429}


class _Again(Exception):
    """An attempt that may be repeated, after the seconds the server asks for."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


class _Refused(Exception):
    """Status and message of a request that no repetition will mend."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status, self.message = status, message


class Endpoint:
    """A `Vision` over HTTP. Use it as a context manager: it owns a thread and connections."""

    def __init__(
        self,
        section: Caption,
        sample: bytes | None = None,
        received: Received = lambda question, answer: None,
        first_delay: float = 0.5,
    ) -> None:
        """`sample` is an image for the preflight, the larger the better; `received` is called on
        another thread as soon as an answer is there, out of order; `first_delay` in seconds."""
        self.name = self.name_of(section)
        self._section, self._sample, self._received = section, sample, received
        self._first_delay = first_delay
        self._url = section.endpoint.rstrip("/")
        self._key = os.environ.get(section.api_key_variable) or None
        self._open_until = 0.0  # loop time before which no request starts, after a 429
        self._refused = 0
        self._stopping = False
        self._jitter = random.Random()
        self._session: aiohttp.ClientSession | None = None
        self._loop = asyncio.new_event_loop()
        self._slots = asyncio.Semaphore(section.concurrency)
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()

    @staticmethod
    def name_of(section: Caption) -> str:
        """Model and revision as the parameters state them; a server does not tell."""
        return f"{section.model}@{section.revision or 'unpinned'}"

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            asyncio.run_coroutine_threadsafe(self._session.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def check(self) -> None:
        """One small request with an image; `InputError` in one sentence when bulk would fail."""
        asyncio.run_coroutine_threadsafe(self._check(), self._loop).result()

    def answers(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """Answers in order. On an error, requests that are open still finish and are received."""
        # Twice as many as are sent at a time, so that one slow answer does not hold up the others.
        limit = 2 * self._section.concurrency + 16
        window: deque[Future[Answer]] = deque()
        self._stopping = False
        try:
            for question in questions:
                window.append(asyncio.run_coroutine_threadsafe(self._ask(question), self._loop))
                if len(window) >= limit:
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()
        except InputError:
            self._stopping = True  # no further attempt; what is open is paid for and is awaited
            for future in window:
                future.exception()
            raise
        finally:
            for future in window:
                future.cancel()

    async def _ask(self, question: Question) -> Answer:
        section = self._section
        body: bytes | None = None
        for attempt in range(section.retries + 1):
            async with self._slots:
                await self._pause()
                if self._stopping:
                    raise InputError("stopped")
                body = body or wire.request_body(
                    question, section.model, section.maximum_tokens, section.temperature
                )
                try:
                    answer = await self._attempt(question, body)
                except _Refused as refused:
                    return self._one_refused(refused)
                except _Again as again:
                    self._slow_down(again)
                    why, delay = again, self._delay(attempt)
                else:
                    self._refused = 0
                    self._received(question, answer)
                    return answer
            if attempt < section.retries:
                await asyncio.sleep(delay)
        raise InputError(
            f"{self._url} failed {section.retries + 1} times in a row for one image ({why}); "
            "see to the server or raise caption.retries, and run again: all answers so far are kept"
        )

    async def _attempt(self, question: Question, body: bytes) -> Answer:
        """One request. Raises `_Again`, `_Refused`, or `InputError` where all would fail."""
        import aiohttp

        try:
            async with self._connected().post(
                f"{self._url}/chat/completions", data=body, allow_redirects=False
            ) as response:
                reply = await response.read()
                status, headers = response.status, response.headers
        except TimeoutError:
            seconds = self._section.timeout_seconds
            raise _Again(f"no answer within caption.timeout_seconds {seconds:g}") from None
        except aiohttp.ClientError as error:
            raise _Again(_reason(error)) from error
        if status == 200:
            try:
                return wire.answer_of(reply, question)
            except wire.Malformed as error:
                raise _Again(f"an unreadable answer ({error})") from None
        message = wire.message_of(reply, self._key)
        if status == 429 and "insufficient_quota" in reply.decode(errors="replace"):
            raise InputError(
                f"the account at {self._url} has no credit left ({message}); top it up and run "
                "again: all answers so far are kept"
            )
        if status in _TRY_AGAIN or status >= 500:
            after = wire.retry_after(headers.get("Retry-After"))
            raise _Again(f"HTTP {status}: {message}", after)
        if status in (401, 403):
            raise InputError(preflight.wrong_key(self._section, bool(self._key), status, message))
        raise _Refused(status, message)

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            headers = {"Content-Type": "application/json"}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            self._session = aiohttp.ClientSession(
                headers=headers,
                connector=aiohttp.TCPConnector(limit=0),  # the semaphore is the limit
                timeout=aiohttp.ClientTimeout(total=self._section.timeout_seconds),
                trust_env=not _is_loopback(self._url),  # a proxy cannot reach this machine
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def _pause(self) -> None:
        while (left := self._open_until - self._loop.time()) > 0:
            # Spread over a tenth of the wait, so that not all come back in one moment.
            await asyncio.sleep(left * (1 + 0.1 * self._jitter.random()))

    def _slow_down(self, again: _Again) -> None:
        """A Retry-After is meant for the client, not for one request: nothing starts before it."""
        if again.after is None:
            return
        if again.after > _LONGEST_WAIT:
            raise InputError(
                f"{self._url} asks to wait {again.after / 3600:.1f} h ({again}), more than 1 h; "
                "run again after that: all answers so far are kept"
            )
        self._open_until = max(self._open_until, self._loop.time() + again.after)

    def _delay(self, attempt: int) -> float:
        """Exponential back-off in seconds with jitter between a half and the whole."""
        longest = min(_LONGEST_DELAY, self._first_delay * 2.0**attempt)
        return longest * (0.5 + 0.5 * self._jitter.random())

    def _one_refused(self, refused: _Refused) -> Answer:
        """An image that the server will not take is flagged by the gate, unless none is taken."""
        self._refused += 1
        if self._refused >= _REFUSALS_IN_A_ROW:
            raise InputError(
                f"{self._url} refused {self._refused} requests in a row ({refused}); see to the "
                "server and run again: all answers so far are kept"
            )
        return Answer("", 0, 0, "refusal")

    async def _check(self) -> None:
        image = self._sample or _tiny_image()
        question = Question("What is in this image? One word.", image, "preflight")
        section = self._section
        body = wire.request_body(question, section.model, _PREFLIGHT_TOKENS, section.temperature)
        for attempt in range(section.retries + 1):
            try:
                await self._attempt(question, body)
                return
            except _Refused as refused:
                status, message = refused.status, refused.message
                models = await self._models() if preflight.is_no_model(status, message) else None
                sentence = preflight.refused(section, status, message, len(image), models)
                raise InputError(sentence) from None
            except _Again as again:
                if isinstance(again.__cause__, _unreachable()):
                    raise InputError(preflight.unreachable(section, str(again))) from None
                self._slow_down(again)
                why, delay = again, max(self._delay(attempt), again.after or 0.0)
            if attempt < section.retries:
                await asyncio.sleep(delay)
        raise InputError(preflight.failed(section, str(why)))

    async def _models(self) -> list[str] | None:
        """What the server offers; None where it does not say."""
        import aiohttp

        try:
            async with self._connected().get(f"{self._url}/models") as response:
                content: Any = await response.json(content_type=None)
            return [str(one["id"]) for one in content["data"]]
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError):
            return None


def _unreachable() -> tuple[type[Exception], ...]:
    import aiohttp

    return (aiohttp.ClientConnectorError, aiohttp.InvalidURL)


def _reason(error: Exception) -> str:
    # Of a connection that failed, what the operating system said is enough.
    text = " ".join(str(getattr(error, "os_error", error)).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tiny_image() -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 160, 140)).save(buffer, "JPEG")
    return buffer.getvalue()
