from __future__ import annotations

import pytest
import tiny_flux
import torch

from dermaflux.core.torch_compile import compile_blocks
from dermaflux.errors import InputError
from dermaflux.generators.flux_lora.model import lora
from dermaflux.generators.flux_lora.model.quantize import BLOCKS, replace
from dermaflux.generators.flux_lora.training.checkpointing import recompute


@pytest.mark.slow
def test_compiled_blocks_give_the_same_gradients_from_one_graph_a_shape() -> None:
    """Half of the blocks in eight bits, an adapter, recomputed blocks and two shapes.

    `fullgraph` raises on any graph break.
    """
    from torch._dynamo.utils import counters

    from dermaflux.generators.flux_lora.model.float8_linear import Float8Linear

    torch._dynamo.reset()
    counters.clear()
    model = tiny_flux.transformer().requires_grad_(False)
    replace(model, BLOCKS[1:], (), Float8Linear, torch.device("cpu"))
    weights = lora.add(model, "all-linear", 4, 4.0, seed=0)
    tiny_flux.stir(weights)
    recompute(model.train(), 3)
    shapes = [(2, 16, 16), (2, 16, 32)]
    wanted = [tiny_flux.gradients(model, weights, *shape) for shape in shapes]
    compile_blocks(model, len(shapes), backend="aot_eager")
    for shape, gradient in zip(shapes, wanted, strict=True):
        compiled = tiny_flux.gradients(model, weights, *shape)
        torch.testing.assert_close(compiled, gradient, rtol=1e-4, atol=1e-7)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs == 4 * len(shapes)
    for shape in shapes:
        tiny_flux.gradients(model, weights, *shape)
    assert counters["stats"]["unique_graphs"] == graphs


def test_four_bit_layers_are_refused() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    model = tiny_flux.transformer(1, 1)
    model.transformer_blocks[0].attn.to_q = bitsandbytes.nn.Linear4bit(128, 128)
    with pytest.raises(InputError, match="base_dtype nf4"):
        compile_blocks(model, 1)


def test_a_missing_compiler_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(InputError, match=r"install g\+\+ or set compile to false"):
        compile_blocks(tiny_flux.transformer(1, 1), 1)
