"""A real OpenAI-compatible server, `transformers serve`, with the small model on loopback."""

from __future__ import annotations

import base64
import json
import os
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
from small_vision import picture

from dermaflux import paths
from dermaflux.captions import caption
from dermaflux.captions.vlm import prompts
from dermaflux.captions.vlm.client import Question
from dermaflux.captions.vlm.endpoint import Endpoint
from dermaflux.captions.vlm.transformers_vlm import TEMPLATE_DATE, InProcessVision
from dermaflux.captions.vlm.visual_attributes import Subject, VisualAttributes
from dermaflux.core import table
from dermaflux.core.hashing import sha256
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.params import Caption
from dermaflux.params.load import load

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


def ask(address: str, model: Path, question: Question) -> dict[str, Any]:
    """One chat completion by plain HTTP, as datasets.md C.1 gives the request."""
    content: list[dict[str, Any]] = [{"type": "text", "text": question.text}]
    body: dict[str, Any] = {"model": str(model), "max_tokens": TOKENS, "temperature": 0.0}
    if question.image is None:
        body["chat_template_kwargs"] = {"date_string": TEMPLATE_DATE}
    else:
        data = "data:image/png;base64," + base64.b64encode(question.image).decode()
        content.insert(0, {"type": "image_url", "image_url": {"url": data}})
    body["messages"] = [{"role": "user", "content": content}]
    request = urllib.request.Request(
        f"{address}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        said: dict[str, Any] = json.load(reply)
    return said


def questions() -> list[Question]:
    images = [picture(seed, 64 + 40 * seed, 64) for seed in range(3)]
    with_image = [Question(prompts.abc_question("benign"), i, sha256(i)) for i in images]
    return [*with_image, Question(prompts.THINK_TWICE, None, "0" * 64)]


@pytest.mark.slow
def test_the_server_says_what_the_in_process_captioner_says(server: str, small_model: Path) -> None:
    local = InProcessVision(str(small_model), precision="fp32", maximum_tokens=TOKENS)
    for question, answer in zip(questions(), local.answers(questions()), strict=True):
        served = ask(server, small_model, question)
        choice, usage = served["choices"][0], served["usage"]
        assert choice["message"]["content"].strip() == answer.text
        assert choice["finish_reason"] == answer.finish
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (
            answer.prompt_tokens,
            answer.completion_tokens,
        )


def section(address: str, model: str, **values: Any) -> Caption:
    settings: dict[str, Any] = dict(
        captioner="llama",
        route="endpoint",
        endpoint=f"{address}/v1",
        model=model,
        maximum_tokens=TOKENS,
        concurrency=4,
        retries=0,
        precision="fp32",
        batch=4,
    )
    return Caption.model_validate(settings | values)


@pytest.mark.slow
def test_the_endpoint_client_brings_what_the_server_says(server: str, small_model: Path) -> None:
    asked = questions()[:3]
    local = InProcessVision(str(small_model), precision="fp32", maximum_tokens=TOKENS)
    with Endpoint(section(server, str(small_model))) as endpoint:
        endpoint.check()
        assert list(endpoint.answers(asked)) == list(local.answers(asked))
        images = [picture(seed) for seed in range(3)]
        chain = VisualAttributes(endpoint, window=2)
        described = list(chain.answers(Subject(sha256(one), one, "dermoscopic") for one in images))
    assert list(chain.thoughts) == ["dermoscopic"]
    assert [one.completion_tokens for one in described] == [2 * TOKENS] * 3


@pytest.mark.slow
def test_a_model_the_server_does_not_have_is_one_sentence(server: str) -> None:
    with (
        Endpoint(section(server, "some/other-model")) as endpoint,
        pytest.raises(InputError, match="some/other-model"),
    ):
        endpoint.check()


def captions(
    folder: Path, monkeypatch: pytest.MonkeyPatch, chosen: Caption
) -> list[dict[str, Any]]:
    """Rows that the stage writes for seven images, in a folder and with a memory of its own."""
    (folder / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(folder)
    images = [picture(seed, 96, 96) for seed in range(7)]
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
    params = load(ROOT / "params.yaml").model_copy(update={"caption": chosen})
    caption.run(params)
    written: list[dict[str, Any]] = pq.read_table(table.shards(paths.CAPTIONS)[0]).to_pylist()
    return written


@pytest.mark.slow
def test_the_stage_writes_the_same_captions_by_both_routes(
    server: str, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = section(server, str(small_model), shard_images=3)
    local = section(server, str(small_model), shard_images=5, route="in_process")
    by_server = captions(tmp_path / "served", monkeypatch, served)
    assert by_server == captions(tmp_path / "local", monkeypatch, local)
    assert len({row["caption"] for row in by_server}) == 7
    assert all("truncated" in row["flags"] for row in by_server)  # ten tokens end no sentence


@pytest.mark.slow
@pytest.mark.parametrize("route", ["in_process", "endpoint"])
def test_the_stage_asks_three_questions_of_a_real_model(
    route: str, server: str, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = section(server, str(small_model), captioner="visual_attributes", route=route)
    written = captions(tmp_path, monkeypatch, chosen)
    assert len({row["caption"] for row in written}) == 7
    # Two questions about the image, and the two of a second try after the gate's complaint.
    assert {row["completion_tokens"] for row in written} <= {2 * TOKENS, 3 * TOKENS, 4 * TOKENS}
