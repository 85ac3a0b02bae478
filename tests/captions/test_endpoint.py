"""The endpoint client against a server that fails in every way a server can."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import time
from typing import Any

import pytest
from loopback import GOOD, HttpRequest, reply, serving
from PIL import Image

from dermaflux.captions.vlm.client import Request, Response
from dermaflux.captions.vlm.endpoint import EndpointVLM
from dermaflux.errors import InputError
from dermaflux.params import Caption
from dermaflux.params.runtime import CaptionRuntime

KEY = "sk-secret-1234567890"


def encoded_image(number: int, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (number % 256, number // 256, 90)).save(buffer, kind)
    return buffer.getvalue() + number.to_bytes(4, "big")  # ignored by decoders, makes it unique


def requests(count: int) -> list[Request]:
    images = [encoded_image(number) for number in range(count)]
    return [Request("Describe.", image, hashlib.sha256(image).hexdigest()) for image in images]


SECTION = Caption(captioner="llama", route="endpoint", model="tiny-vision")


def runtime(url: str, **values: Any) -> CaptionRuntime:
    defaults = {"endpoint": url, "concurrency": 8, "timeout_seconds": 5.0, "retries": 3}
    return CaptionRuntime(**defaults | values)


def open_endpoint(
    url: str, sample: bytes | None = None, on_response: Any = None, **values: Any
) -> EndpointVLM:
    """A client that retries at once."""
    on_response = on_response or (lambda request, response: None)
    return EndpointVLM("tiny", SECTION, runtime(url, **values), sample, on_response, 0.01)


def generate(url: str, count: int, **values: Any) -> list[Response]:
    with open_endpoint(url, **values) as endpoint:
        return list(endpoint.generate(requests(count)))


def number_of(request: HttpRequest) -> int:
    assert request.image is not None
    return int.from_bytes(request.image[-4:], "big")


def test_responses_keep_the_order_of_the_requests_and_few_are_in_flight(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def later_ones_first(request: HttpRequest, _: int) -> bytes:
        time.sleep(0.04 if number_of(request) % 5 == 0 else 0.005)
        return reply(f"answer {number_of(request)}")

    with serving(later_ones_first) as server:
        responses = generate(server.url, 60)
    assert [response.text for response in responses] == [f"answer {number}" for number in range(60)]
    assert 4 <= server.most_open <= 8
    assert {request.key for request in server.requests} == {f"Bearer {KEY}"}
    body = server.requests[0].body
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("tiny-vision", 256, 0.0)
    # Llama 3.2's template refuses a system message beside an image.
    assert [message["role"] for message in body["messages"]] == ["user"]


def test_a_slow_reader_bounds_what_is_sent_ahead():
    pulled = 0

    def counted():
        nonlocal pulled
        for request in requests(400):
            pulled += 1
            yield request

    with serving() as server, open_endpoint(server.url) as endpoint:
        responses = endpoint.generate(counted())
        for _ in range(3):
            next(responses)
        time.sleep(0.1)
        assert pulled <= 3 + 2 * 8 + 16
        responses.close()


def once(failure: Any):
    """Each image meets the failure at its first request and an answer at its second."""
    seen = set()

    def script(request: HttpRequest, _: int) -> Any:
        if number_of(request) in seen:
            return reply(f"answer {number_of(request)}")
        seen.add(number_of(request))
        return failure(request) if callable(failure) else failure

    return script


def slow(request: HttpRequest) -> bytes:
    time.sleep(0.6)
    return reply("too late")


@pytest.mark.parametrize(
    "failure",
    [
        (429, b'{"error": {"message": "slow down"}}', {"Retry-After": "0"}),
        (500, b"oops"),
        (503, b"", {"Retry-After": "0.05"}),
        (529, b"overloaded"),
        None,
        (200, reply(), {"cut": 20}),
        (200, reply()[:-20]),
        (200, b'{"choices": []}'),
        (200, b"<html>maintenance</html>"),
        slow,
    ],
    ids=["429", "500", "503", "529", "cut before", "cut within", "truncated JSON", "no choices",
         "html", "timeout"],
)  # fmt: skip
def test_a_passing_failure_is_retried_and_no_response_is_lost(failure):
    with serving(once(failure)) as server:
        responses = generate(server.url, 12, timeout_seconds=0.4)
    assert [response.text for response in responses] == [f"answer {number}" for number in range(12)]
    # Connections that are cut while idle are opened again by the library without an attempt.
    assert 24 <= len(server.requests) <= 40


def test_a_retry_after_holds_back_every_request():
    times = []

    def script(request: HttpRequest, number: int) -> Any:
        times.append(time.monotonic())
        return (429, b"", {"Retry-After": "1"}) if number == 0 else reply()

    with serving(script) as server:
        assert len(generate(server.url, 6, concurrency=1)) == 6
    gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
    assert gaps[0] >= 1.0
    assert max(gaps[1:]) < 0.5


def test_a_lasting_failure_is_one_sentence_and_responses_in_flight_are_received():
    received = []

    def receive(request: Request, response: Response) -> None:
        received.append(response.text)

    def script(request: HttpRequest, _: int) -> Any:
        if number_of(request) == 9:
            return 503, b"down for maintenance"
        return reply(f"answer {number_of(request)}")

    with (
        serving(script) as server,
        open_endpoint(server.url, on_response=receive, retries=2) as endpoint,
        pytest.raises(InputError, match=r"failed 3 times.*HTTP 503: down.*caption.retries"),
    ):
        list(endpoint.generate(requests(30)))
    assert {f"answer {number}" for number in range(9)} <= set(received)
    assert len(received) == len(set(received)) == sum(server.answered.values())


def test_an_empty_text_a_refusal_and_a_truncated_text_are_responses():
    def script(request: HttpRequest, _: int) -> Any:
        refused = json.loads(reply())
        refused["choices"][0]["message"] = {"content": None, "refusal": "I cannot."}
        parts = json.loads(reply())
        parts["choices"][0]["message"]["content"] = [{"type": "text", "text": "in parts"}]
        return [
            reply(""),
            reply("cut", "length"),
            json.dumps(refused).encode(),
            (400, b'{"error": {"message": "blocked by the content filter"}}'),
            json.dumps(parts).encode(),
        ][number_of(request)]

    with serving(script) as server:
        responses = generate(server.url, 5)
    assert [(response.text, response.finish) for response in responses] == [
        ("", "stop"),
        ("cut", "length"),
        ("I cannot.", "refusal"),
        ("", "refusal"),
        ("in parts", "stop"),
    ]


def test_a_server_that_rejects_everything_gets_no_508344_requests():
    with (
        serving(lambda request, number: (422, b"no")) as server,
        pytest.raises(InputError, match=r"refused 5\d requests in a row.*HTTP 422"),
    ):
        generate(server.url, 500)
    assert len(server.requests) < 70


def models(request: HttpRequest, _: int) -> Any:
    if request.path.endswith("/models"):
        return json.dumps({"data": [{"id": "llama-vision"}, {"id": "qwen-vl"}]}).encode()
    return 404, json.dumps(
        {"error": {"message": "The model `tiny-vision` does not exist"}}
    ).encode()


@pytest.mark.parametrize(
    ("script", "key", "expected"),
    [
        (lambda a, n: (401, f"Incorrect API key: {KEY}".encode()), KEY,
         r"refused the API key in the environment variable OPENAI_API_KEY \(HTTP 401: .*\*\*\*"),
        (lambda a, n: (403, b"no"), None, "requires an API key .*OPENAI_API_KEY is not set"),
        (models, KEY, "does not serve caption.model 'tiny-vision' but llama-vision, qwen-vl; set"),
        (lambda a, n: (404, b"nothing here"), KEY, "has no /chat/completions.*/v1"),
        (lambda a, n: (400, b'{"error": {"message": "tiny-vision is not a multimodal model"}}'),
         None, "takes no images .*; set caption.model to a vision-language model"),
        (lambda a, n: (500, b'{"error": "this model is missing data required for image input"}'),
         None, "takes no images"),
        (lambda a, n: (413, b"Payload Too Large"), None, r"an image of [\d,]+ bytes as too large"),
        (lambda a, n: (400, b'{"message": "image exceeds 5 MB maximum"}'), None, "as too large"),
        (lambda a, n: (503, b"loading"), None, "failed 3 times in a row .HTTP 503: loading"),
        (lambda a, n: (429, b'{"error": {"code": "insufficient_quota"}}'), KEY, "no credit left"),
        (lambda a, n: (429, b"", {"Retry-After": "7200"}), KEY, "wait 2.0 h"),
    ],
    ids=["wrong key", "no key", "unknown model", "no such path", "no vision", "no vision, Ollama",
         "413", "oversize", "503", "no credit", "long wait"],
)  # fmt: skip
def test_preflight_names_in_one_sentence_what_would_fail(
    monkeypatch, caplog, script, key, expected
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    caplog.set_level("DEBUG")
    with (
        serving(script) as server,
        open_endpoint(server.url, encoded_image(1), retries=2) as endpoint,
        pytest.raises(InputError, match=expected) as caught,
    ):
        endpoint.check()
    assert "HTTP" in caplog.text
    assert KEY not in caplog.text
    assert "\n" not in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(server.requests) <= 3


def test_preflight_of_an_absent_and_of_a_working_server():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with (
        open_endpoint(url) as endpoint,
        pytest.raises(InputError, match="cannot be reached .*; start the server"),
    ):
        endpoint.check()
    with serving() as server, open_endpoint(server.url, encoded_image(1, "PNG")) as endpoint:
        endpoint.check()
        (request,) = server.requests
        assert request.image == encoded_image(1, "PNG")
        assert request.body["max_tokens"] <= 16


def test_an_image_beyond_the_limit_is_refused_before_it_is_sent():
    buffer = io.BytesIO()
    Image.new("RGB", (5000, 8)).save(buffer, "PNG")
    with (
        serving() as server,
        open_endpoint(server.url, buffer.getvalue()) as endpoint,
        pytest.raises(InputError, match="5000 x 8 pixels"),
    ):
        endpoint.check()
    assert server.requests == []


def test_a_text_request_has_no_image():
    with serving() as server, open_endpoint(server.url) as endpoint:
        (response,) = endpoint.generate([Request("Think twice.", None, "dermoscopic")])
    assert response.text == GOOD
    assert server.requests[0].body["messages"] == [{"role": "user", "content": "Think twice."}]
    assert server.requests[0].key is None
