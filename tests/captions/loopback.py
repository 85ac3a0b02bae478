"""A loopback OpenAI-compatible server whose behaviour a test scripts, request by request."""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = (
    "The mole shows a slight asymmetry. Its border is smooth and regular. "
    "The color is a uniform light brown. It covers a third of the picture."
)


def reply(text: str = GOOD, finish: str = "stop", prompt: int = 40, completion: int = 30) -> bytes:
    return json.dumps(
        {
            "id": "1",
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": finish,
                }
            ],
            "usage": {"prompt_tokens": prompt, "completion_tokens": completion},
        }
    ).encode()


class Asked:
    """One request as the server saw it."""

    def __init__(self, path: str, key: str | None, body: dict[str, Any]) -> None:
        self.path, self.key, self.body = path, key, body
        content = body["messages"][0]["content"] if body else ""
        self.text = content if isinstance(content, str) else content[-1]["text"]
        self.image: bytes | None = None
        if not isinstance(content, str):
            url = content[0]["image_url"]["url"]
            assert url.startswith(("data:image/jpeg;base64,", "data:image/png;base64,"))
            self.image = base64.b64decode(url.split(",", 1)[1], validate=True)
        self.preflight = self.text.startswith("What is in this image?")


class Server:
    """`script(asked, number)` gives status, body and headers, or cuts the connection with None."""

    def __init__(self, script: Callable[[Asked, int], Any]) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.answered: Counter[tuple[bytes | None, str]] = Counter()
        self.most_open = self._open = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                server.handle(self, {})

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                server.handle(self, json.loads(raw))

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_: Any) -> None: ...

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def handle(self, request: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        asked = Asked(request.path, request.headers.get("Authorization"), body)
        with self._lock:
            self.asked.append(asked)
            number = sum(not one.preflight for one in self.asked) - 1
            self._open += 1
            self.most_open = max(self.most_open, self._open)
        done = self.script(asked, number)
        with self._lock:
            self._open -= 1
        if done is None:
            request.close_connection = True
            request.connection.close()
            return
        status, content, headers = (*done, {})[:3] if isinstance(done, tuple) else (200, done, {})
        headers = dict(headers)
        cut = headers.pop("cut", 0)
        request.send_response(status)
        request.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content[: len(content) - cut])
        request.wfile.flush()
        if cut:
            request.close_connection = True
        elif status == 200 and body and not asked.preflight:
            with self._lock:
                self.answered[asked.image, asked.text] += 1


@contextmanager
def serving(
    script: Callable[[Asked, int], Any] = lambda asked, number: reply(),
) -> Iterator[Server]:
    server = Server(script)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
