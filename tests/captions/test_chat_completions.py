"""One request: its limits, its failures and what never leaves this machine."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from loopback import GOOD, serving
from PIL import Image

from dermaflux.captions.vlm.chat_completions import (
    LARGEST_IMAGE,
    ChatCompletions,
    Rejected,
    Retriable,
    Unreachable,
    retry_after,
)
from dermaflux.captions.vlm.client import Request, Response
from dermaflux.errors import InputError
from dermaflux.params import Caption
from dermaflux.params.runtime import CaptionRuntime

SECTION = Caption(captioner="llama", route="endpoint", model="tiny-vision")
TEXT = Request("Think twice.", None, "dermoscopic")


def complete(url: str, request: Request = TEXT, **values: Any) -> Response:
    async def run() -> Response:
        server = ChatCompletions(SECTION, CaptionRuntime(endpoint=url, **values))
        try:
            return await server.complete(request, 16)
        finally:
            await server.close()

    return asyncio.run(run())


@pytest.fixture
def trickle() -> Iterator[str]:
    """A server that sends a byte of its reply every 50 ms and never ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()
        listener.settimeout(10)

        def run() -> None:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
                while not stop.wait(0.05):
                    try:
                        connection.sendall(b" ")
                    except OSError:
                        return

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        stop.set()
        thread.join()


def test_the_timeout_limits_the_whole_answer_and_not_a_single_read(trickle: str) -> None:
    start = time.monotonic()
    with pytest.raises(Retriable, match=r"no answer within timeout_seconds 1\b"):
        complete(trickle, timeout_seconds=1.0)
    # The reply would go on for eight minutes; importing the client counts here, too.
    assert time.monotonic() - start < 30


def test_a_retry_after_is_seconds_or_a_date() -> None:
    now = datetime.now(UTC)
    assert retry_after(None) is None
    assert retry_after("soon") is None
    assert retry_after("1.5") == 1.5
    assert retry_after("-3") == 0.0
    later = retry_after(format_datetime(now + timedelta(seconds=90), usegmt=True))
    assert later == pytest.approx(90, abs=3)
    assert retry_after(format_datetime(now - timedelta(hours=1), usegmt=True)) == 0.0


def test_a_redirect_is_rejected_and_not_followed() -> None:
    def script(request: Any, number: int) -> Any:
        return 302, b"", {"Location": "/elsewhere"}

    with serving(script) as server, pytest.raises(Rejected) as caught:
        complete(server.url)
    assert caught.value.status == 302
    assert len(server.requests) == 1


def test_a_loopback_address_bypasses_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the discard port: nobody listens
    with serving() as server:
        assert complete(server.url).text == GOOD


def test_no_key_but_the_named_one_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-service")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-private")
    monkeypatch.setenv("OUR_KEY", "sk-ours")
    with serving() as server:
        complete(server.url, api_key_variable="OUR_KEY")
        complete(server.url, api_key_variable="UNSET_KEY")
    assert [request.key for request in server.requests] == ["Bearer sk-ours", None]
    sent = [f"{request.headers}" for request in server.requests]
    assert not [text for text in sent if "another-service" in text or "org-private" in text]


def test_an_image_over_the_limit_is_one_sentence(tmp_path: Any) -> None:
    file = tmp_path / "large.jpg"
    Image.new("RGB", (16, 16)).save(file)
    image = file.read_bytes() + bytes(LARGEST_IMAGE)
    with (
        serving() as server,
        pytest.raises(InputError, match=r"15,000,\d+ bytes.*ingest.jpeg_quality"),
    ):
        complete(server.url, Request("Look.", image, "k" * 64))
    assert server.requests == []


@pytest.mark.parametrize("url", ["http://no.such.host.invalid/v1", "http://127.0.0.1:9/v1"])
def test_an_address_without_a_server_is_unreachable(url: str) -> None:
    with pytest.raises((Unreachable, InputError)) as caught:
        complete(url)
    assert "\n" not in str(caught.value)
