"""The in-process captioner against the model's own forward pass, and its refusals."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from small_vision import BEGIN, TEMPLATE, noise_image
from transformers import (
    AutoProcessor,
    GenerationConfig,
    LlamaConfig,
    MllamaConfig,
    MllamaForConditionalGeneration,
)

from dermaflux.captions.vlm import loading, prompts, transformers_vlm
from dermaflux.captions.vlm.client import Request
from dermaflux.captions.vlm.transformers_vlm import TransformersVLM
from dermaflux.core.hashing import sha256
from dermaflux.core.images import decode_image
from dermaflux.errors import InputError

SIZES = [(64, 64), (64, 128), (200, 60), (64, 64), (100, 100)]


def vision(folder: Path, batch: int = 4, temperature: float = 0.0) -> TransformersVLM:
    return TransformersVLM(
        str(folder), precision="fp32", batch=batch, maximum_tokens=10, temperature=temperature
    )


def requests() -> list[Request]:
    """Prompts of different lengths, images of different shapes, and one request without image."""
    batch = []
    for number, (width, height) in enumerate(SIZES):
        image = noise_image(number, width, height)
        text = prompts.abc_prompt(("benign", "malignant")[number % 2]) + " Please." * number
        batch.append(Request(text, image, sha256(image)))
    return [*batch, Request(prompts.THINK_TWICE, None, "0" * 64)]


def step_by_step(folder: Path, request: Request, steps: int) -> list[int]:
    """Greedy tokens by whole forward passes: no batch, no padding, no cache, no `generate`."""
    model = MllamaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    written = (
        f"<|start_header_id|>user<|end_header_id|>\n\n<|image|>{request.text}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    # The tokenizer itself puts the begin token in front of text that lacks it.
    inputs = processor.tokenizer(written, return_tensors="pt")
    assert request.image is not None
    shown = processor.image_processor([[decode_image(request.image)]], return_tensors="pt")
    tiles = int(shown.pop("num_tiles")[0][0])
    start = inputs["input_ids"][0].tolist().index(processor.image_token_id)
    tokens: list[int] = []
    for _ in range(steps):
        ids = torch.cat([inputs["input_ids"], torch.tensor([tokens], dtype=torch.long)], dim=1)
        seen = torch.zeros(1, ids.shape[1], 1, 4, dtype=torch.long)
        seen[:, start:, :, :tiles] = 1
        with torch.no_grad():
            scores = model(input_ids=ids, cross_attention_mask=seen, **shown).logits[0, -1]
        tokens.append(int(scores.argmax()))
    return tokens


def test_a_batch_generates_what_plain_forward_passes_generate(small_model: Path) -> None:
    batch = requests()
    responses = list(vision(small_model).generate(batch))
    decode = AutoProcessor.from_pretrained(small_model).tokenizer.decode
    for request, response in list(zip(batch, responses, strict=True))[:3]:
        text = decode(step_by_step(small_model, request, 10), skip_special_tokens=True)
        assert response.text == text.strip()


def test_batched_equals_one_by_one(small_model: Path) -> None:
    batch = requests()
    together = list(vision(small_model).generate(batch))
    assert together == list(vision(small_model, batch=1).generate(batch))
    assert [response.finish for response in together] == ["length"] * len(batch)
    assert {response.completion_tokens for response in together} == {10}


def test_the_image_decides(small_model: Path) -> None:
    batch = [Request("Describe.", noise_image(seed), str(seed)) for seed in range(4)]
    assert len({response.text for response in vision(small_model).generate(batch)}) > 1


def test_prompt_is_the_published_form_with_one_begin_token(small_model: Path) -> None:
    batch = requests()[:2]
    model = vision(small_model)
    expected = (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<|image|>This is an image "
        "containing a benign lesion. Give me a description of this mole regarding its asymmetry, "
        "border irregularity, and color.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert model.prompt(batch[0]) == expected
    inputs = model.encode(batch)
    begin = AutoProcessor.from_pretrained(small_model).tokenizer.convert_tokens_to_ids(BEGIN)
    assert (inputs["input_ids"] == begin).sum(dim=1).tolist() == [1, 1]
    assert inputs["attention_mask"][0, 0] == 0  # the shorter prompt is padded on the left
    assert inputs["attention_mask"][:, -1].tolist() == [1, 1]


def test_prompt_without_image_does_not_depend_on_the_day(small_model: Path) -> None:
    prompt = vision(small_model).prompt(Request("Think.", None, "k"))
    assert "Today Date: 26 Jul 2024" in prompt


def test_a_system_message_beside_an_image_is_refused_and_never_sent(small_model: Path) -> None:
    from jinja2 import TemplateError

    processor = AutoProcessor.from_pretrained(small_model)
    system = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Look."}]}
    with pytest.raises(TemplateError, match="incompatible with system messages"):
        processor.apply_chat_template([system, user])
    assert "system" not in vision(small_model).prompt(Request("Look.", b"", ""))


def test_an_end_token_ends_the_response(small_model: Path, tmp_path: Path) -> None:
    import shutil

    batch = requests()[:3]
    tokens = [step_by_step(small_model, request, 10) for request in batch]
    end = tokens[0][4]
    assert end not in tokens[0][:4]
    folder = shutil.copytree(small_model, tmp_path / "ending")
    settings = GenerationConfig.from_pretrained(folder)
    settings.eos_token_id = [*settings.eos_token_id, end]
    settings.save_pretrained(folder)
    for response, row in zip(vision(folder).generate(batch), tokens, strict=True):
        expected = row.index(end) + 1 if end in row else 10
        assert response.completion_tokens == expected
        assert response.finish == ("stop" if end in row else "length")
    assert vision(folder).name != vision(small_model).name


def test_a_sampled_response_does_not_depend_on_its_neighbours(small_model: Path) -> None:
    batch = requests()
    model = vision(small_model, temperature=0.7)
    together = list(model.generate(batch))
    alone = [next(model.generate([request])) for request in reversed(batch)][::-1]
    assert together == alone
    assert together != list(vision(small_model).generate(batch))


def test_sampling_follows_the_softmax() -> None:
    logits, temperature, draws = torch.tensor([2.0, 1.0, 0.0, -1.0]), 0.7, 20_000
    sampling = transformers_vlm.GumbelSampling(temperature, range(draws), torch.device("cpu"))
    samples = sampling(torch.empty(0), logits.expand(draws, 4)).argmax(dim=1)
    share = np.bincount(samples.numpy(), minlength=4) / draws
    expected = np.exp(logits.numpy() / temperature)
    expected /= expected.sum()
    assert np.all(np.abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / draws))


def test_the_published_model_needs_21_gigabytes_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, config = torch.device("cpu"), MllamaConfig()  # the defaults are those of the 11B model
    with pytest.raises(InputError, match=r"caption\.model llama has 10\.6 billion parameters"):
        loading.fits("llama", config, "bf16", cpu)
    monkeypatch.setenv("DERMAFLUX_DEVICE", "cpu")
    monkeypatch.setattr(loading, "free_memory", lambda device: 24 * 10**9)
    assert "21.3 GB in bf16" in loading.fits("llama", config, "bf16", cpu)
    monkeypatch.setattr(loading, "parameters", lambda config: 10_642_941_475)
    with pytest.raises(InputError, match="46.8 GB in fp32 .* 24.0 GB free; set caption.precision"):
        loading.fits("llama", config, "fp32", cpu)


def test_models_that_cannot_answer_are_refused_before_work(
    small_model: Path, tmp_path: Path
) -> None:
    import shutil

    LlamaConfig(num_hidden_layers=1).save_pretrained(tmp_path / "words")
    with pytest.raises(InputError, match="is a llama model, which takes no images"):
        vision(tmp_path / "words").check()
    with pytest.raises(InputError, match=r"nowhere.* has no caption\.revision; correct the path"):
        vision(tmp_path / "nowhere").check()
    base = shutil.copytree(small_model, tmp_path / "base")
    for path in base.glob("chat_template*"):
        path.unlink()
    with pytest.raises(InputError, match="has no chat template"):
        vision(base).check()
    picky = shutil.copytree(small_model, tmp_path / "picky")
    (picky / "chat_template.jinja").write_text("{{ raise_exception('no images') }}" + TEMPLATE)
    with pytest.raises(InputError, match="refuses a prompt .no images.*name another"):
        vision(picky).check()
    foreign = shutil.copytree(small_model, tmp_path / "foreign")
    (foreign / "config.json").write_text(
        json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "code.Own"}})
    )
    with pytest.raises(InputError, match="foreign cannot be opened"):
        vision(foreign).check()
    vision(small_model).check()


def test_damaged_weights_are_one_sentence(small_model: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(small_model, tmp_path / "cut")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(InputError, match="cut cannot be opened"):
        next(vision(folder).generate(requests()))


def test_an_oversize_image_is_refused(small_model: Path) -> None:
    batch = [Request("Look.", noise_image(0, 5000, 8), "k")]
    with pytest.raises(InputError, match="5000 x 8 pixels, over the limit of 4096"):
        next(vision(small_model).generate(batch))
    with pytest.raises(InputError, match="cannot be opened"):
        next(vision(small_model).generate([Request("Look.", b"no image", "k")]))


class Hub(BaseHTTPRequestHandler):
    """The hub as it answers for a gated and for an unknown repository."""

    def do_HEAD(self) -> None:
        gated = "/gated/" in self.path
        self.send_response(403 if gated else 404)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("X-Error-Message", "Access is restricted.")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.slow
def test_gated_and_unknown_repositories_are_told_apart(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = (
        "import json\n"
        "from dermaflux.captions.vlm.transformers_vlm import TransformersVLM\n"
        "from dermaflux.errors import InputError\n"
        "messages = []\n"
        "for name in ('gated/model', 'un/known'):\n"
        "    try:\n"
        "        TransformersVLM(name, 'main').check()\n"
        "    except InputError as error:\n"
        "        messages.append(str(error))\n"
        "print(json.dumps(messages))\n"
    )
    import os

    address = f"http://127.0.0.1:{server.server_port}"
    environment = os.environ | {
        "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    server.shutdown()
    assert done.returncode == 0, done.stderr
    gated, unknown = json.loads(done.stdout.splitlines()[-1])
    assert "gated/model is gated; accept its licence" in gated
    assert "un/known is neither a folder nor a repository" in unknown
