"""The endpoint client against a server that fails in every way a server can."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import time
from typing import Any

import pytest
from loopback import GOOD, Asked, reply, serving
from PIL import Image

from dermaflux.captions.vlm.client import Answer, Question
from dermaflux.captions.vlm.endpoint import Endpoint
from dermaflux.errors import InputError
from dermaflux.params import Caption

KEY = "sk-secret-1234567890"


def picture(number: int, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (number % 256, number // 256, 90)).save(buffer, kind)
    return buffer.getvalue() + number.to_bytes(4, "big")  # ignored by decoders, makes it unique


def questions(count: int) -> list[Question]:
    images = [picture(number) for number in range(count)]
    return [Question("Describe.", one, hashlib.sha256(one).hexdigest()) for one in images]


def section(url: str, **values: Any) -> Caption:
    given = {"captioner": "llama", "route": "endpoint", "endpoint": url, "model": "tiny-vision"}
    return Caption(**given | {"concurrency": 8, "timeout_seconds": 5.0, "retries": 3} | values)


def ask(url: str, count: int, **values: Any) -> list[Answer]:
    with Endpoint(section(url, **values), first_delay=0.01) as endpoint:
        return list(endpoint.answers(questions(count)))


def number_of(asked: Asked) -> int:
    assert asked.image is not None
    return int.from_bytes(asked.image[-4:], "big")


def test_answers_keep_the_order_of_the_questions_and_few_requests_are_open(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def later_ones_first(asked: Asked, _: int) -> bytes:
        time.sleep(0.04 if number_of(asked) % 5 == 0 else 0.005)
        return reply(f"answer {number_of(asked)}")

    with serving(later_ones_first) as server:
        found = ask(server.url, 60)
    assert [one.text for one in found] == [f"answer {number}" for number in range(60)]
    assert 4 <= server.most_open <= 8
    assert {one.key for one in server.asked} == {f"Bearer {KEY}"}
    body = server.asked[0].body
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("tiny-vision", 256, 0.0)
    # Llama 3.2's template refuses a system message beside an image.
    assert [message["role"] for message in body["messages"]] == ["user"]


def test_a_slow_reader_bounds_what_is_asked_ahead():
    pulled = 0

    def counted():
        nonlocal pulled
        for one in questions(400):
            pulled += 1
            yield one

    with serving() as server, Endpoint(section(server.url)) as endpoint:
        answers = endpoint.answers(counted())
        for _ in range(3):
            next(answers)
        time.sleep(0.1)
        assert pulled <= 3 + 2 * 8 + 16
        answers.close()


def once(failure: Any):
    """Each image meets the failure at its first request and an answer at its second."""
    seen = set()

    def script(asked: Asked, _: int) -> Any:
        if number_of(asked) in seen:
            return reply(f"answer {number_of(asked)}")
        seen.add(number_of(asked))
        return failure(asked) if callable(failure) else failure

    return script


def slow(asked: Asked) -> bytes:
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
def test_a_passing_failure_is_tried_again_and_no_answer_is_lost(failure):
    with serving(once(failure)) as server:
        found = ask(server.url, 12, timeout_seconds=0.4)
    assert [one.text for one in found] == [f"answer {number}" for number in range(12)]
    # Connections that are cut while idle are opened again by the library without an attempt.
    assert 24 <= len(server.asked) <= 40


def test_a_retry_after_holds_back_every_request():
    times = []

    def script(asked: Asked, number: int) -> Any:
        times.append(time.monotonic())
        return (429, b"", {"Retry-After": "1"}) if number == 0 else reply()

    with serving(script) as server:
        assert len(ask(server.url, 6, concurrency=1)) == 6
    gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
    assert gaps[0] >= 1.0
    assert max(gaps[1:]) < 0.5


def test_lasting_failure_is_one_sentence_and_what_was_answered_is_received():
    kept = []

    def script(asked: Asked, _: int) -> Any:
        if number_of(asked) == 9:
            return 503, b"down for maintenance"
        return reply(f"answer {number_of(asked)}")

    with serving(script) as server:
        given = section(server.url, retries=2)
        with (
            Endpoint(
                given, received=lambda asked, answer: kept.append(answer.text), first_delay=0.01
            ) as endpoint,
            pytest.raises(InputError, match=r"failed 3 times.*HTTP 503: down.*caption.retries"),
        ):
            list(endpoint.answers(questions(30)))
    assert {f"answer {number}" for number in range(9)} <= set(kept)
    assert len(kept) == len(set(kept)) == sum(server.answered.values())


def test_an_empty_answer_a_refusal_and_a_cut_answer_are_answers():
    def script(asked: Asked, _: int) -> Any:
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
        ][number_of(asked)]

    with serving(script) as server:
        found = ask(server.url, 5)
    assert [(one.text, one.finish) for one in found] == [
        ("", "stop"),
        ("cut", "length"),
        ("I cannot.", "refusal"),
        ("", "refusal"),
        ("in parts", "stop"),
    ]


def test_a_server_that_refuses_everything_is_not_asked_508344_times():
    with (
        serving(lambda asked, number: (422, b"no")) as server,
        pytest.raises(InputError, match=r"refused 5\d requests in a row.*HTTP 422"),
    ):
        ask(server.url, 500)
    assert len(server.asked) < 70


def models(asked: Asked, _: int) -> Any:
    if asked.path.endswith("/models"):
        return json.dumps({"data": [{"id": "llama-vision"}, {"id": "qwen-vl"}]}).encode()
    return 404, json.dumps(
        {"error": {"message": "The model `tiny-vision` does not exist"}}
    ).encode()


@pytest.mark.parametrize(
    ("script", "key", "expected"),
    [
        (lambda a, n: (401, f"Incorrect API key: {KEY}".encode()), KEY,
         r"refused the key in the environment variable OPENAI_API_KEY \(HTTP 401: .*\*\*\*"),
        (lambda a, n: (403, b"no"), None, "wants a key .*OPENAI_API_KEY is not set; set it"),
        (models, KEY, "does not serve caption.model 'tiny-vision' but llama-vision, qwen-vl; set"),
        (lambda a, n: (404, b"nothing here"), KEY, "answers no /chat/completions.*/v1"),
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
def test_preflight_says_in_one_sentence_what_would_fail(monkeypatch, script, key, expected):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    with serving(script) as server:
        given = section(server.url, retries=2)
        with (
            Endpoint(given, picture(1), first_delay=0.01) as endpoint,
            pytest.raises(InputError, match=expected) as caught,
        ):
            endpoint.check()
    assert "\n" not in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(server.asked) <= 3


def test_preflight_on_nobody_and_on_somebody():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with (
        Endpoint(section(url)) as endpoint,
        pytest.raises(InputError, match="cannot be reached .*; start the server"),
    ):
        endpoint.check()
    with serving() as server, Endpoint(section(server.url), picture(1, "PNG")) as endpoint:
        endpoint.check()
        (asked,) = server.asked
        assert asked.image == picture(1, "PNG")
        assert asked.body["max_tokens"] <= 16


def test_an_image_beyond_the_limit_is_refused_before_it_is_sent():
    buffer = io.BytesIO()
    Image.new("RGB", (5000, 8)).save(buffer, "PNG")
    with (
        serving() as server,
        Endpoint(section(server.url), buffer.getvalue()) as endpoint,
        pytest.raises(InputError, match="5000 x 8 pixels"),
    ):
        endpoint.check()
    assert server.asked == []


def test_a_text_question_has_no_image():
    with serving() as server, Endpoint(section(server.url)) as endpoint:
        (found,) = endpoint.answers([Question("Think twice.", None, "dermoscopic")])
    assert found.text == GOOD
    assert server.asked[0].body["messages"] == [{"role": "user", "content": "Think twice."}]
