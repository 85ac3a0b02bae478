"""Throughput of the endpoint client against a server on loopback that answers at once.

The server is another process that does no more than find the end of each request; both share the
machine's cores. The whole path is timed: encoded images -> requests -> responses -> cache, at the
concurrency of the parameters; and again from the cache alone. Writes JSON:
`python benchmarks/captions.py --output benchmarks/results/captions.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import multiprocessing
import os
import platform
import re
import resource
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dermaflux.captions.vlm import prompts
from dermaflux.captions.vlm.answer_cache import AnswerCache, CachedVLM
from dermaflux.captions.vlm.client import Request
from dermaflux.captions.vlm.endpoint import EndpointVLM
from dermaflux.captions.vlm.open import sampling_settings
from dermaflux.core.files import write_json
from dermaflux.core.hashing import sha256
from dermaflux.params import Caption
from dermaflux.params.load import load
from dermaflux.params.runtime import CaptionRuntime

ROOT = Path(__file__).parents[1]
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_TEXT = (
    "The mole shows a slight asymmetry, with one half a little larger. Its border is smooth and "
    "well defined. The color is mainly light brown, with dark brown."
)


class Instant(asyncio.Protocol):
    """HTTP/1.1 with keep-alive: reads a request to its end, sends one constant answer."""

    REPLY = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self._transport: Any = transport
        self._left = 0
        self._head = b""

    def data_received(self, data: bytes) -> None:
        """Count the body's bytes; answer at the last one."""
        if not self._left:
            self._head += data
            head, separator, body = self._head.partition(b"\r\n\r\n")
            if not separator:
                return
            length = _LENGTH.search(head)
            assert length is not None
            self._left, self._head = int(length[1]) - len(body), b""
        else:
            self._left -= len(data)
        if self._left == 0:
            self._transport.write(self.REPLY)


def serve(ready: Connection) -> None:
    """Server process; sends its port, ends with its parent."""
    body = json.dumps(
        {
            "choices": [{"message": {"content": _TEXT}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 40, "completion_tokens": 38},
        }
    ).encode()
    Instant.REPLY = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Instant, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def requests(images: int, side: int) -> Iterator[Request]:
    """Images of `side` pixels and about the bytes of a photograph of skin, all different."""
    random = np.random.default_rng(0)
    smooth = random.integers(60, 220, (side // 8, side // 8, 3), dtype=np.uint8)
    image = Image.fromarray(smooth).resize((side, side), Image.Resampling.BICUBIC)
    noise = random.integers(-6, 7, (side, side, 1))
    grainy = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grainy).save(buffer, "JPEG", quality=95)
    text = prompts.abc_prompt("benign")
    for number in range(images):
        encoded = buffer.getvalue() + number.to_bytes(8, "big")  # decoders ignore what follows
        yield Request(text, encoded, sha256(encoded))


def measure(section: Caption, runtime: CaptionRuntime, images: int, side: int) -> dict[str, Any]:
    """Responses per second, first from the server and then from the cache."""
    batch = list(requests(images, side))
    with tempfile.TemporaryDirectory() as folder:
        settings = sampling_settings(section)
        cache = AnswerCache(Path(folder) / "answers.sqlite", "benchmark", settings)
        with EndpointVLM("benchmark", section, runtime, on_response=cache.add) as endpoint:
            vlm = CachedVLM(endpoint, cache, section.maximum_tokens, None)
            vlm.check()
            began, worked = time.perf_counter(), time.process_time()
            served = sum(response.text == _TEXT for response in vlm.generate(batch))
            seconds, processor = time.perf_counter() - began, time.process_time() - worked
            began = time.perf_counter()
            cached = sum(response.text == _TEXT for response in vlm.generate(batch))
            again = time.perf_counter() - began
        cache.close()
    assert served == cached == images
    return {
        "images": images,
        "pixels_per_side": side,
        "bytes_per_image": len(batch[0].image or b""),
        "seconds": round(seconds, 2),
        "images_per_second": round(images / seconds, 1),
        "client_processor_seconds": round(processor, 2),
        "images_per_second_cached": round(images / again, 1),
    }


def main() -> None:
    """Start the server, measure each image size, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    here, there = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{here.recv()}/v1"
    params = load(ROOT / "params.yaml")
    section = params.caption.model_copy(update={"captioner": "llama", "route": "endpoint"})
    runtime = params.runtime.caption.model_copy(update={"endpoint": url})
    report = {
        "runs": [measure(section, runtime, arguments.images, side) for side in (128, 256, 512)],
        "concurrency": runtime.concurrency,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "cpus": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }
    server.terminate()
    print(json.dumps(report, indent=1))
    if arguments.output:
        write_json(arguments.output, report)


if __name__ == "__main__":
    main()
