"""A real OpenAI-compatible server, `transformers serve`, with the small model on loopback."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from small_vision import noise_image

from dermaflux import paths
from dermaflux.captions import caption
from dermaflux.captions.vlm import prompts
from dermaflux.captions.vlm.client import LesionImage, Request
from dermaflux.captions.vlm.endpoint import EndpointVLM
from dermaflux.captions.vlm.transformers_vlm import TEMPLATE_DATE, TransformersVLM
from dermaflux.captions.vlm.visual_attributes import VisualAttributes
from dermaflux.core import table
from dermaflux.core.hashing import sha256
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.params import Caption
from dermaflux.params.load import load
from dermaflux.params.runtime import CaptionRuntime

ROOT = Path(__file__).parents[2]
TOKENS = 10


@pytest.fixture(scope="module")
def server(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base address of a server that has loaded the small model."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("serve")
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(small_model)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--device", "cpu", "--dtype", "float32"]
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | {"HF_HOME": str(folder)}
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            assert running.poll() is None, (folder / "log").read_text()
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1).close()
                break
            except (urllib.error.URLError, TimeoutError):
                time.sleep(0.5)
        yield address
    finally:
        running.terminate()
        running.wait(10)


def send(address: str, model: Path, request: Request) -> dict[str, Any]:
    """One chat completion by plain HTTP, as datasets.md C.1 gives the request."""
    content: list[dict[str, Any]] = [{"type": "text", "text": request.text}]
    body: dict[str, Any] = {"model": str(model), "max_tokens": TOKENS, "temperature": 0.0}
    if request.image is None:
        body["chat_template_kwargs"] = {"date_string": TEMPLATE_DATE}
    else:
        data = "data:image/png;base64," + base64.b64encode(request.image).decode()
        content.insert(0, {"type": "image_url", "image_url": {"url": data}})
    body["messages"] = [{"role": "user", "content": content}]
    post = urllib.request.Request(
        f"{address}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(post, timeout=30) as reply:
        completion: dict[str, Any] = json.load(reply)
    return completion


def requests() -> list[Request]:
    images = [noise_image(seed, 64 + 40 * seed, 64) for seed in range(3)]
    with_image = [Request(prompts.abc_prompt("benign"), i, sha256(i)) for i in images]
    return [*with_image, Request(prompts.THINK_TWICE, None, "0" * 64)]


@pytest.mark.slow
def test_the_server_responds_as_the_in_process_captioner_does(
    server: str, small_model: Path
) -> None:
    local = TransformersVLM(str(small_model), precision="fp32", maximum_tokens=TOKENS)
    for request, response in zip(requests(), local.generate(requests()), strict=True):
        served = send(server, small_model, request)
        choice, usage = served["choices"][0], served["usage"]
        assert choice["message"]["content"].strip() == response.text
        assert choice["finish_reason"] == response.finish
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (
            response.prompt_tokens,
            response.completion_tokens,
        )


def section(model: str, **values: Any) -> Caption:
    settings: dict[str, Any] = dict(
        captioner="llama",
        route="endpoint",
        model=model,
        maximum_tokens=TOKENS,
        precision="fp32",
        batch=4,
    )
    return Caption.model_validate(settings | values)


def runtime(address: str, shard_images: int = 2000) -> CaptionRuntime:
    return CaptionRuntime(
        endpoint=f"{address}/v1", concurrency=4, retries=0, shard_images=shard_images
    )


@pytest.mark.slow
def test_the_endpoint_client_returns_what_the_server_responds(
    server: str, small_model: Path
) -> None:
    with_image = requests()[:3]
    local = TransformersVLM(str(small_model), precision="fp32", maximum_tokens=TOKENS)
    with EndpointVLM("small", section(str(small_model)), runtime(server)) as endpoint:
        endpoint.check()
        assert list(endpoint.generate(with_image)) == list(local.generate(with_image))
        images = [noise_image(seed) for seed in range(3)]
        chain = VisualAttributes(endpoint, window=2)
        lesions = [LesionImage(image, sha256(image), "benign", "dermoscopic") for image in images]
        described = list(chain.generate(lesions))
    assert list(chain.thoughts) == ["dermoscopic"]
    assert [response.completion_tokens for response in described] == [2 * TOKENS] * 3


@pytest.mark.slow
def test_a_model_the_server_does_not_have_is_one_sentence(server: str) -> None:
    with (
        EndpointVLM("other", section("some/other-model"), runtime(server)) as endpoint,
        pytest.raises(InputError, match="some/other-model"),
    ):
        endpoint.check()


def captions(
    folder: Path, monkeypatch: pytest.MonkeyPatch, chosen: Caption, speed: CaptionRuntime
) -> list[dict[str, Any]]:
    """Rows that the stage writes for seven images, in a folder and with its own cache."""
    (folder / ".dvc").mkdir(parents=True)
    shutil.copytree(ROOT / "prompts", folder / "prompts")
    monkeypatch.chdir(folder)
    images = [noise_image(seed, 96, 96) for seed in range(7)]
    rows = (
        {
            "image": {"bytes": image, "path": None},
            "image_id": f"noise/{number}",
            "label": CLASSES[number % 2],
            "modality": ("dermoscopic", "clinical")[number % 2],
            "scale": 128,
            "sha256": sha256(image),
            "split": "train",
        }
        for number, image in enumerate(images)
    )
    table.write(rows, paths.CORPUS, 64)
    params = load(ROOT / "params.yaml")
    update = {"caption": chosen, "runtime": params.runtime.model_copy(update={"caption": speed})}
    caption.run(params.model_copy(update=update))
    written: list[dict[str, Any]] = pq.read_table(table.shards(paths.CAPTIONS)[0]).to_pylist()
    return written


@pytest.mark.slow
def test_the_stage_writes_the_same_captions_by_both_routes(
    server: str, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = section(str(small_model))
    local = section(str(small_model), route="in_process")
    by_server = captions(tmp_path / "served", monkeypatch, served, runtime(server, 3))
    assert by_server == captions(tmp_path / "local", monkeypatch, local, runtime(server, 5))
    assert len({row["caption"] for row in by_server}) == 7
    assert all("truncated" in row["flags"] for row in by_server)  # ten tokens end no sentence


@pytest.mark.slow
@pytest.mark.parametrize("route", ["in_process", "endpoint"])
def test_the_stage_sends_three_prompts_to_a_real_model(
    route: str, server: str, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = section(str(small_model), captioner="visual_attributes", route=route)
    written = captions(tmp_path, monkeypatch, chosen, runtime(server))
    assert len({row["caption"] for row in written}) == 7
    # Two prompts about the image, and two more for the second try after a fault.
    assert {row["completion_tokens"] for row in written} <= {2 * TOKENS, 3 * TOKENS, 4 * TOKENS}
