from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tiny_flux
import torch
from small_generator import Workspace

from dermaflux.errors import InputError
from dermaflux.generators.flux_lora.model import lora, pipeline
from dermaflux.generators.flux_lora.model.float8_linear import Float8Linear
from dermaflux.generators.flux_lora.model.options import BaseDtype
from dermaflux.generators.flux_lora.model.quantize import BLOCKS, replace
from dermaflux.generators.flux_lora.sampling import load

CPU = torch.device("cpu")
DTYPES = ["fp32", "bf16", "fp8", "nf4"]


@pytest.fixture(scope="module")
def loud(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The backbone with its zero-started gates and output layer well away from zero."""
    pipe = pipeline.load(workspace.backbone, "fp32", CPU)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in pipe.transformer.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    folder = tmp_path_factory.mktemp("loud")
    pipe.save_pretrained(folder)
    return folder


def _available(base_dtype: str) -> BaseDtype:
    if base_dtype == "nf4":
        pytest.importorskip("bitsandbytes")
    return base_dtype  # type: ignore[return-value]


def _output(pipe: Any, base_dtype: BaseDtype) -> torch.Tensor:
    with torch.inference_mode():
        return tiny_flux.velocity(pipe.transformer, 2, 64, 32, pipeline.COMPUTE[base_dtype]).float()


def _distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", DTYPES)
def test_trains_over_a_base_that_stays_as_it_is(loud: Any, name: str) -> None:
    base_dtype = _available(name)
    pipe = pipeline.load(loud, base_dtype, CPU)
    base = {key: value.clone() for key, value in pipe.transformer.state_dict().items()}
    weights = lora.add(pipe.transformer, "all-linear", 4, 4.0, seed=0)
    assert {parameter.dtype for parameter in weights.values()} == {torch.float32}
    optimiser = torch.optim.AdamW(weights.values(), lr=1e-2)
    pipe.transformer.train()
    losses = []
    for _ in range(2):
        out = tiny_flux.velocity(pipe.transformer, 2, 64, 32, pipeline.COMPUTE[base_dtype])
        loss = out.float().square().mean()
        loss.backward()
        losses.append(float(loss.detach()))
        assert sum(float(p.grad.abs().sum()) for p in weights.values() if p.grad is not None) > 0
        optimiser.step()
        optimiser.zero_grad()
    assert losses[1] < losses[0] < float("inf")
    after = {k.replace(".base_layer", ""): v for k, v in pipe.transformer.state_dict().items()}
    for key, value in base.items():
        assert torch.equal(after[key].view(torch.uint8), value.view(torch.uint8)), key


def test_narrow_bases_shrink_and_stay_close(loud: Any) -> None:
    sizes, outputs = {}, {}
    for name in DTYPES:
        base_dtype = _available(name)
        pipe = pipeline.load(loud, base_dtype, CPU)
        parts = [pipe.transformer, pipe.text_encoder_2]
        kept = [tensor for part in parts for tensor in [*part.parameters(), *part.buffers()]]
        sizes[name] = sum(tensor.numel() * tensor.element_size() for tensor in kept)
        outputs[name] = _output(pipe, base_dtype)
    assert sizes["bf16"] < 0.51 * sizes["fp32"]
    assert sizes["fp8"] < 0.60 * sizes["bf16"]
    assert sizes["nf4"] < 0.36 * sizes["bf16"]
    errors = {name: _distance(outputs[name], outputs["fp32"]) for name in DTYPES}
    assert errors["bf16"] < 0.03
    assert errors["fp8"] < 0.08
    assert errors["nf4"] < 0.25


@pytest.mark.parametrize("name", DTYPES)
def test_sampling_sees_the_adapter_in_every_dtype(loud: Any, tmp_path: Any, name: str) -> None:
    base_dtype = _available(name)
    trained = pipeline.load(loud, "fp32", CPU)
    plain = _output(trained, "fp32")
    weights = lora.add(trained.transformer, "all-linear", 4, 4.0, seed=0)
    tiny_flux.stir(weights)
    tiny_flux.stir(weights)
    wanted = _output(trained, "fp32")
    lora.save(trained.transformer, tmp_path, {})
    pipe = load.open_generator(tmp_path, loud, base_dtype)
    found = _output(pipe, base_dtype)
    bounds = {"fp32": 1e-5, "bf16": 0.03, "fp8": 0.08, "nf4": 0.25}
    assert _distance(found, wanted) < bounds[name]
    # What the adapter changed is there, next to what quantization changed.
    effect, change = (wanted - plain).flatten(), (found - plain).flatten()
    assert float(torch.nn.functional.cosine_similarity(effect, change, dim=0)) > 0.7


def test_eight_bit_layer_is_the_rounded_linear_forwards_and_backwards() -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(48, 32)
    layer = Float8Linear(linear)
    inputs = torch.randn(5, 48, requires_grad=True)
    rounded = layer.weight.float() * layer.scale
    # e4m3 has three bits after the point: half a step is 1/16 of a number.
    largest = linear.weight.abs().amax(dim=1, keepdim=True)
    assert bool(((rounded - linear.weight).abs() <= linear.weight.abs() / 16 + largest / 448).all())
    out = layer(inputs)
    torch.testing.assert_close(out, inputs @ rounded.T + linear.bias)
    (gradient,) = torch.autograd.grad(out.square().sum(), inputs)
    torch.testing.assert_close(gradient, 2 * out.detach() @ rounded)
    moved = layer.to(torch.bfloat16)
    assert moved.weight.dtype == torch.float8_e4m3fn
    assert moved.scale.dtype == torch.float32


def test_eight_bit_layers_keep_no_wide_weight_for_the_backward_pass() -> None:
    model = tiny_flux.transformer(1, 1).to(torch.bfloat16).requires_grad_(False)
    replace(model, BLOCKS, (), Float8Linear, CPU)
    lora.add(model, "all-linear", 2, 2.0, seed=0)
    weights = {tuple(m.weight.shape) for m in model.modules() if isinstance(m, Float8Linear)}
    # Transposed too; 3 images make no activation look like one.
    weights |= {shape[::-1] for shape in weights}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor
    ):
        tiny_flux.velocity(model.train(), 3, 5, 7, torch.bfloat16)
    assert any(tensor.dtype == torch.float8_e4m3fn for tensor in kept)
    outside = {p.data_ptr() for p in model.parameters()}
    wide = [t for t in kept if tuple(t.shape) in weights and t.dtype == torch.bfloat16]
    assert not [t for t in wide if t.data_ptr() not in outside]


def test_text_encoders_can_be_left_out(loud: Any) -> None:
    pipe = pipeline.load(loud, "nf4" if _has_bitsandbytes() else "fp8", CPU, pipeline.IMAGE_PARTS)
    assert pipe.text_encoder is None
    assert pipe.text_encoder_2 is None
    clip, t5 = pipeline.tokenizers(loud)
    assert clip("a mole").input_ids == pipe.tokenizer("a mole").input_ids
    assert t5("a mole").input_ids == pipe.tokenizer_2("a mole").input_ids


def _has_bitsandbytes() -> bool:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        return False
    return True


def test_a_missing_package_is_one_sentence(loud: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(InputError, match=r"pip install dermaflux\[quantization\]"):
        pipeline.load(loud, "nf4", CPU)


class _Hub(http.server.BaseHTTPRequestHandler):
    """Refuses every file in the words of the hub, by the name of the repository."""

    CODES: ClassVar[dict[str, tuple[int, str]]] = {
        "gated": (403, "GatedRepo"), "old": (404, "RevisionNotFound"), "gone": (404, "RepoNotFound")
    }  # fmt: skip

    def do_HEAD(self) -> None:
        owner = self.path.removeprefix("/api/models").split("/")[1]
        status, code = self.CODES[owner]
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_: object) -> None:
        pass


_LOAD = """
import sys
from pathlib import Path
import torch
from dermaflux.errors import InputError
from dermaflux.generators import backbone
from dermaflux.generators.flux_lora.model import pipeline
from dermaflux.params import Backbone

for owner in ("gated", "old", "gone"):
    folder = Path(sys.argv[1]) / owner
    backbone.pin(Backbone(repository=f"{owner}/FLUX.1-dev", revision="a" * 40), folder)
    try:
        pipeline.load(folder, "bf16", torch.device("cpu"))
    except InputError as error:
        print(error)
"""


@pytest.mark.slow
def test_what_the_hub_refuses_is_one_sentence_that_names_the_fix(tmp_path: Path) -> None:
    """With the hub's own client, against a server that answers as the hub does."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "home"),
    }
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, str(tmp_path)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    server.shutdown()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    gated, old, gone = (line for line in lines if not line.startswith("backbone: "))
    assert "accept its licence on https://huggingface.co/gated/FLUX.1-dev" in gated
    assert f"old/FLUX.1-dev has no revision {'a' * 40}" in old
    assert "neither a folder nor a repository" in gone
