"""A vision-language model behind an OpenAI-compatible server: vLLM, `transformers serve`, Ollama...

Many requests are in flight at a time, responses come back in the order of the requests, and memory
is bounded by the number in flight. Writes nothing.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType

from dermaflux.captions.vlm import preflight
from dermaflux.captions.vlm.chat_completions import (
    ChatCompletions,
    Rejected,
    Retriable,
    Unreachable,
)
from dermaflux.captions.vlm.client import Request, Response
from dermaflux.errors import InputError
from dermaflux.params import Caption
from dermaflux.params.runtime import CaptionRuntime

OnResponse = Callable[[Request, Response], None]

_LONGEST_BACKOFF = 60.0  # seconds; a longer Retry-After is honoured
_LONGEST_RETRY_AFTER = 3600.0  # seconds; beyond it the run ends instead of waiting
_PREFLIGHT_TOKENS = 16  # the least that hosted interfaces accept
_REJECTIONS_IN_A_ROW = 50  # after as many, every further request is expected to be rejected


class EndpointVLM:
    """A `VLM` over HTTP. Use it as a context manager: it owns a thread and connections."""

    def __init__(
        self,
        name: str,
        section: Caption,
        runtime: CaptionRuntime,
        sample: bytes | None = None,
        on_response: OnResponse = lambda request, response: None,
        first_delay: float = 0.5,
    ) -> None:
        """`sample` is an image for the preflight, the larger the better; `on_response` is called
        on another thread as soon as a response arrives, out of order; `first_delay` in seconds.

        Raises `InputError` for an address that no connection can be opened to.
        """
        self.name = name
        self._section, self._runtime, self._sample = section, runtime, sample
        self._on_response, self._first_delay = on_response, first_delay
        self._server = ChatCompletions(section, runtime)
        self._paused_until = 0.0  # loop time before which no request starts
        self._rejections = 0
        self._stopping = False
        self._jitter = random.Random()  # nosec B311 # spreads retries in time
        self._loop = asyncio.new_event_loop()
        self._slots = asyncio.Semaphore(runtime.concurrency)
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()

    def __enter__(self) -> EndpointVLM:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def check(self) -> None:
        """One small request with an image; `InputError` in one sentence when bulk would fail."""
        asyncio.run_coroutine_threadsafe(self._check(), self._loop).result()

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        """Responses in order. On an error, requests in flight still finish and are passed on."""
        # Twice as many as are sent at a time, so that one slow response does not block the others.
        limit = 2 * self._runtime.concurrency + 16
        window: deque[Future[Response]] = deque()
        self._stopping = False
        try:
            for request in requests:
                window.append(asyncio.run_coroutine_threadsafe(self._send(request), self._loop))
                if len(window) >= limit:
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()
        except InputError:
            self._stopping = True  # no further attempt; what is in flight is paid for and awaited
            for future in window:
                future.exception()
            raise
        finally:
            for future in window:
                future.cancel()

    async def _send(self, request: Request) -> Response:
        retries = self._runtime.retries
        for attempt in range(retries + 1):
            async with self._slots:
                await self._wait_for_pause()
                if self._stopping:
                    raise InputError("stopped")
                try:
                    response = await self._server.complete(request, self._section.maximum_tokens)
                except Rejected as rejection:
                    return self._reject(rejection)
                except Retriable as failure:
                    self._pause(failure)
                    reason, delay = failure, self._backoff(attempt)
                else:
                    self._rejections = 0
                    self._on_response(request, response)
                    return response
            if attempt < retries:
                await asyncio.sleep(delay)
        raise InputError(
            f"{self._runtime.endpoint} failed {retries + 1} times in a row for one image "
            f"({reason}); check the server or raise runtime.caption.retries, and run again: all "
            "answers so far are stored"
        )

    async def _wait_for_pause(self) -> None:
        while (left := self._paused_until - self._loop.time()) > 0:
            # Spread over a tenth of the wait, so that not all requests restart at once.
            await asyncio.sleep(left * (1 + 0.1 * self._jitter.random()))

    def _pause(self, failure: Retriable) -> None:
        """A Retry-After is meant for the client, not for one request: nothing starts before it."""
        wait = failure.retry_after
        if wait is None:
            return
        if wait > _LONGEST_RETRY_AFTER:
            raise InputError(
                f"{self._runtime.endpoint} asks to wait {wait / 3600:.1f} h ({failure}), over the "
                "limit of 1 h; run again after that: all answers so far are stored"
            )
        self._paused_until = max(self._paused_until, self._loop.time() + wait)

    def _backoff(self, attempt: int) -> float:
        """Exponential back-off in seconds with jitter between a half and the whole."""
        longest = min(_LONGEST_BACKOFF, self._first_delay * 2.0**attempt)
        return longest * (0.5 + 0.5 * self._jitter.random())

    def _reject(self, rejection: Rejected) -> Response:
        """The quality gate flags an image that the server rejects, unless it rejects them all."""
        self._rejections += 1
        if self._rejections >= _REJECTIONS_IN_A_ROW:
            raise InputError(
                f"{self._runtime.endpoint} refused {self._rejections} requests in a row "
                f"({rejection}); check the server and run again: all answers so far are stored"
            )
        return Response("", 0, 0, "refusal")

    async def _check(self) -> None:
        image = self._sample or _tiny_image()
        request = Request("What is in this image? One word.", image, "preflight")
        section, runtime = self._section, self._runtime
        for attempt in range(runtime.retries + 1):
            try:
                await self._server.complete(request, _PREFLIGHT_TOKENS)
                return
            except Rejected as rejection:
                status, message = rejection.status, rejection.message
                unknown = preflight.is_unknown_model(status, message)
                models = await self._server.models() if unknown else None
                raise InputError(
                    preflight.rejected(section, runtime, status, message, len(image), models)
                ) from None
            except Unreachable as failure:
                raise InputError(preflight.unreachable(runtime, str(failure))) from None
            except Retriable as failure:
                self._pause(failure)
                reason = str(failure)
                delay = max(self._backoff(attempt), failure.retry_after or 0.0)
            if attempt < runtime.retries:
                await asyncio.sleep(delay)
        raise InputError(preflight.failed(section, runtime, reason))


def _tiny_image() -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 160, 140)).save(buffer, "JPEG")
    return buffer.getvalue()
