from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import joblib
import pyarrow.parquet as pq
import pytest
from loopback import GOOD, reply, serving
from PIL import Image
from ruamel.yaml import YAML

from dermaflux import paths
from dermaflux.captions import caption, estimate
from dermaflux.captions.vlm.captioner import RETRY_INSTRUCTION
from dermaflux.core import table
from dermaflux.core.hashing import sha256
from dermaflux.errors import InputError
from dermaflux.generators.data.images import captioned
from dermaflux.params import Params, TokenPrice
from dermaflux.params.load import load, parse
from dermaflux.phantom import draw, render

ROOT = Path(__file__).parents[2]
IMAGES = 40


def _params(captioner: str, route: str = "in_process", tokens: int = 256, **runtime: Any) -> Params:
    """The shipped parameters with another captioner and other values of `runtime.caption`."""
    params = load(ROOT / "params.yaml")
    changes = {"captioner": captioner, "route": route, "maximum_tokens": tokens}
    section = type(params.caption).model_validate(params.caption.model_dump() | changes)
    speed = params.runtime.caption
    speed = type(speed).model_validate(speed.model_dump() | runtime)
    update = {"caption": section, "runtime": params.runtime.model_copy(update={"caption": speed})}
    # The folder of the shipped backbone is not where these stages run.
    update["backbone"] = params.backbone.model_copy(update={"repository": "tiny"})
    return params.model_copy(update=update)


def _by_endpoint(url: str, captioner: str = "llama", tokens: int = 256, **runtime: Any) -> Params:
    defaults = {"endpoint": url, "concurrency": 4, "shard_images": 12, "retries": 1}
    return _params(captioner, "endpoint", tokens, **defaults | runtime)


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts").symlink_to(Path(__file__).parents[2] / "prompts")
    (tmp_path / ".dvc").mkdir()  # marks the main checkout, where checkpoints and answers are

    def rows():
        for index in range(IMAGES):
            lesion = draw(index, "test-caption-stage")
            encoded = io.BytesIO()
            Image.fromarray(render(lesion, 128, 128)).save(encoded, "JPEG", quality=95)
            yield {
                "image": {"bytes": encoded.getvalue(), "path": None},
                "image_id": f"phantom/{index:03d}",
                "label": lesion.label,
                "modality": "dermoscopic" if index % 2 else "clinical",
                "scale": 128,
                "sha256": sha256(encoded.getvalue()),
                "split": table.SPLITS[index % 3],
            }

    table.write(rows(), paths.CORPUS, 64)
    with joblib.parallel_config(backend="threading"):  # starts faster than processes
        yield tmp_path


def _written() -> bytes:
    (shard,) = table.shards(paths.CAPTIONS)
    assert shard.name == "captions-00000-of-00001.parquet"
    return shard.read_bytes()


def _rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(table.shards(paths.CAPTIONS)[0]).to_pylist()
    return rows


def test_every_image_gets_one_caption_whatever_the_workers_and_the_shards(corpus):
    with joblib.parallel_config(backend="loky"):
        caption.run(_params("measured"))
    first = _written()
    assert pq.read_table(table.shards(paths.CAPTIONS)[0]).schema.equals(caption.SCHEMA)
    rows = _rows()
    expected = table.metadata(paths.CORPUS, ["image_id", "label"])
    assert [row["image_id"] for row in rows] == list(expected["image_id"])
    assert [row["label"] for row in rows] == list(expected["label"])
    assert all(row["captioner"] == "measured" for row in rows)
    assert all(f"a {row['label']} lesion." in row["caption"] for row in rows)
    caption.run(_params("measured", shard_images=7))
    assert _written() == first


def test_label_captioner_writes_the_papers_sentence_and_no_numbers(corpus):
    caption.run(_params("label"))
    rows = _rows()
    assert len(rows) == IMAGES
    for row in rows:
        assert row["caption"] == f"This is an image containing a {row['label']} lesion."
        assert row["asymmetry"] is row["colours"] is row["diameter_fraction"] is None
        assert row["held_out"] is False


def test_a_model_writes_captions_beside_the_measurements_and_the_gate_flags(corpus):
    refusing = set()

    def script(request, number):
        if request.preflight:
            return reply("Skin")
        if number < 3:
            refusing.add(request.image)
        retried = request.text.endswith(RETRY_INSTRUCTION)
        if request.image in refusing and not (retried and number % 2):
            return reply("I'm sorry, I cannot help with that.", prompt=40, completion=10)
        return reply(prompt=40, completion=30)

    caption.run(_params("measured"))
    measured = _rows()
    with serving(script) as server:
        caption.run(_by_endpoint(server.url))
    rows = _rows()
    for row, numbers in zip(rows, measured, strict=True):
        for name in ("image_id", "label", "asymmetry", "border_irregularity", "colours"):
            assert row[name] == numbers[name]
        assert row["captioner"] == "llama"
        assert row["caption"].startswith(f"This is an image containing a {row['label']} lesion. ")
    twice = [row for row in rows if row["completion_tokens"] != 30]
    assert len(twice) == len(refusing) == 3
    for row in twice:
        assert row["prompt_tokens"] == 80
        assert (row["completion_tokens"], row["flags"] is None) in {(20, False), (40, True)}
        assert row["flags"] is None or "refusal" in row["flags"].split(",")
    # Run again, with the server gone: nothing is paid, and the same table comes out.
    before = _written()
    caption.run(_by_endpoint(server.url, shard_images=100))
    assert _written() == before


def test_three_prompts_send_the_second_once_per_modality(corpus):
    text = "A small, round lesion of light brown color and smooth texture."
    with serving(lambda request, number: reply(text)) as server:
        caption.run(_by_endpoint(server.url, "visual_attributes"))
    bulk = [request for request in server.requests if not request.preflight]
    assert len(bulk) == 2 * IMAGES + 2
    assert sum(request.image is None for request in bulk) == 2
    assert {number for (image, _), number in server.answered.items() if image} == {1}
    assert {row["completion_tokens"] for row in _rows()} == {60}


def test_the_budget_is_never_exceeded_and_buys_what_it_can(corpus):
    with serving(lambda request, number: reply(prompt=40, completion=30)) as server:
        spent = r"runtime.caption.token_budget 700 is spent \((630|700)"
        for _ in range(3):
            before = sum(server.answered.values())
            with pytest.raises(InputError, match=spent):
                caption.run(_by_endpoint(server.url, tokens=30, token_budget=700))
            assert not paths.CAPTIONS.exists()
            assert 9 <= sum(server.answered.values()) - before <= 10  # of 70 tokens each
        caption.run(_by_endpoint(server.url, tokens=30, token_budget=100_000))
    assert len(_rows()) == IMAGES
    assert set(server.answered.values()) == {1}


def test_a_server_that_would_fail_is_refused_before_any_image_is_sent(corpus):
    with (
        serving(lambda request, number: (401, b"no")) as server,
        pytest.raises(InputError, match="OPENAI_API_KEY"),
    ):
        caption.run(_by_endpoint(server.url))
    assert len(server.requests) == 1
    assert not paths.CAPTIONS.exists()


def test_estimate_counts_and_sends_no_request(corpus, capsys):
    with serving() as server:
        for captioner, requests in (("llama", 40), ("visual_attributes", 82), ("measured", 0)):
            estimate.run(_by_endpoint(server.url, captioner), rate=0.01)
            assert f"requests     {requests}" in capsys.readouterr().out
        assert server.requests == []
        caption.run(_by_endpoint(server.url))
        sent = len(server.requests)
        estimate.run(_by_endpoint(server.url), rate=0.01)
        assert "40 answered already" in capsys.readouterr().out
        assert len(server.requests) == sent
    result = estimate.Estimate(10, 0, 3600, 1_000_000, 500_000, 0)
    price = TokenPrice(prompt=2.0, completion=10.0)
    assert (result.hours(2.0), result.cost(price)) == (0.5, 7.0)


def _write_params(folder: Path, params: Params) -> None:
    with (folder / "params.yaml").open("w") as file:
        content = json.loads(params.model_dump_json(by_alias=True))
        YAML(typ="safe").dump(content, file)


def _start(folder: Path, params: Params) -> subprocess.Popen[bytes]:
    _write_params(folder, params)
    return subprocess.Popen(
        [sys.executable, "-c", "from dermaflux.cli import main; main()", "caption"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        start_new_session=True,
    )


def test_killed_in_the_middle_no_caption_is_lost_and_none_is_paid_twice(corpus):
    """The first image's answer never comes, so that later ones arrive out of order and wait."""
    hold = threading.Event()
    first: list[bytes | None] = []

    def script(request, number):
        if request.preflight:
            return reply("Skin")
        if not first:
            first.append(request.image)
        if not hold.is_set() and (request.image == first[0] or sum(server.answered.values()) >= 17):
            hold.wait(30)
            return None  # the client is dead by now
        return reply(f"{GOOD} It is number {number}.")

    with serving(script) as server:
        params = _by_endpoint(server.url, shard_images=30)
        run = _start(corpus, params)
        until = time.monotonic() + 30
        while sum(server.answered.values()) < 17 and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.3)  # what was sent is received; all further requests hang
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        paid = sum(server.answered.values())
        assert 17 <= paid <= 20
        assert not paths.CAPTIONS.exists()
        hold.set()
        time.sleep(0.1)
        caption.run(params)
    assert len(server.answered) == IMAGES
    assert set(server.answered.values()) == {1}
    rows = _rows()
    assert len({row["caption"].split("number ")[1] for row in rows}) == IMAGES
    assert all(row["flags"] is None and row["asymmetry"] is not None for row in rows[:1])


def test_killed_and_resumed_under_edited_code_every_caption_is_by_the_new_code(corpus):
    package = corpus / "src" / "dermaflux"
    shutil.copytree(ROOT / "src" / "dermaflux", package)
    code = (
        "import os, signal, sys\n"
        "from dermaflux.captions import caption\n"
        "from dermaflux.params.load import load\n"
        "write = caption._write_shard\n"
        "def dying(rows, shard):\n"
        "    write(rows, shard)\n"
        "    if sys.argv[1] == 'dies' and shard.stem == '000001':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "caption._write_shard = dying\n"
        "caption.run(load())\n"
    )
    _write_params(corpus, _params("label", shard_images=15))
    environment = os.environ | {"PYTHONPATH": str(package.parent)}

    def run(mode: str) -> int:
        return subprocess.run([sys.executable, "-c", code, mode], env=environment).returncode

    assert run("dies") == -signal.SIGKILL
    saved = sorted((corpus / ".dermaflux" / "checkpoints" / "caption").glob("*/*.parquet"))
    assert [file.stem for file in saved] == ["000000", "000001"]
    # One of the sub-packages, which a digest of the modules beside caption.py would not cover.
    label = package / "captions" / "text" / "label.py"
    label.write_text(label.read_text().replace("an image containing", "an image showing"))
    assert run("finishes") == 0
    assert {row["caption"].split(" a ")[0] for row in _rows()} == {"This is an image showing"}


def test_killed_between_shards_the_finished_ones_are_not_repeated(corpus, monkeypatch):
    caption.run(_params("measured"))
    whole = _written()
    calls: list[int] = []
    real = caption.caption_rows

    def dying(section, images, *rest):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(images))
        return real(section, images, *rest)

    monkeypatch.setattr(caption, "caption_rows", dying)
    with pytest.raises(KeyboardInterrupt):
        caption.run(_params("measured", shard_images=15))
    assert _written() == whole  # the earlier table stays until the new one is whole
    monkeypatch.setattr(
        caption, "caption_rows", lambda *args: calls.append(len(args[1])) or real(*args)
    )
    caption.run(_params("measured", shard_images=15))
    assert calls == [15, 15, 10]
    assert _written() == whole
    assert not list((corpus / ".dermaflux" / "checkpoints" / "caption").glob("*/*.parquet"))


SPEED_ONLY = (
    *("endpoint", "api_key_variable", "concurrency", "timeout_seconds", "retries"),
    *("token_budget", "price_per_million_tokens", "shard_images"),
)


@pytest.mark.parametrize("key", SPEED_ONLY)
def test_a_key_that_moved_to_runtime_names_its_new_place(key):
    raw = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    raw["caption"][key] = raw["runtime"]["caption"].pop(key)
    with pytest.raises(InputError, match=rf"'caption.{key}'.*'runtime.caption.{key}'"):
        parse(raw)


def test_the_stage_says_what_it_made_and_a_second_caption_is_refused_later(corpus, capsys):
    caption.run(_params("measured"))
    held_out = sum(row["held_out"] for row in _rows())
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"caption: {IMAGES} captions by measured, 0 flagged by the quality gate, {held_out} held "
        "out, 0 tokens, in captions"
    )
    (shard,) = table.shards(paths.CAPTIONS)
    written = pq.read_table(shard)
    rows = written.to_pylist()
    table.write_shard([*rows, rows[0]], shard, written.schema.remove_metadata())
    with pytest.raises(InputError, match="more than one caption for 1 images such as 'phantom/"):
        captioned(paths.CORPUS, paths.CAPTIONS)
