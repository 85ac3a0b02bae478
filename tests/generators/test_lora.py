from __future__ import annotations

from pathlib import Path

import pytest
import tiny_flux
import torch
from diffusers import FluxPipeline
from safetensors import safe_open

from dermaflux.generators.flux_lora.model import lora, pipeline
from dermaflux.generators.flux_lora.model.options import Targets
from dermaflux.generators.flux_lora.model.prompt_padding import encode


@pytest.mark.parametrize(
    ("targets", "expected"), [("attention", 104_595_456), ("all-linear", 343_670_784)]
)
def test_adapter_sizes_on_flux_1_dev(targets: Targets, expected: int) -> None:
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        flux = FluxTransformer2DModel(guidance_embeds=True)
        assert lora.count(flux, targets, 64) == expected
        assert lora.count_fused(flux, 64) == 306_315_264
        flux.add_adapter(lora.config(flux, targets, 64, 64))
    adapted = sum(p.numel() for name, p in flux.named_parameters() if "lora_" in name)
    assert adapted == expected


def test_fused_layers_share_one_factor() -> None:
    """The authors' layout, built layer by layer as black-forest-labs/flux names them."""
    from diffusers import FluxTransformer2DModel

    width, rank = 128, 3
    flux = FluxTransformer2DModel(
        num_layers=2, num_single_layers=3, attention_head_dim=32, num_attention_heads=4,
        joint_attention_dim=96, pooled_projection_dim=64, axes_dims_rope=(8, 12, 12),
    )  # fmt: skip
    stream = {
        "attn.qkv": (1, 3), "attn.proj": (1, 1), "mlp.0": (1, 4), "mlp.2": (4, 1), "mod.lin": (1, 6)
    }  # fmt: skip
    single = {"linear1": (1, 7), "linear2": (5, 1), "modulation.lin": (1, 3)}
    sides = 2 * 2 * sum(map(sum, stream.values())) + 3 * sum(map(sum, single.values()))
    assert lora.count_fused(flux, rank) == rank * width * sides


def test_adapter_starts_the_same_in_every_dtype_and_changes_nothing() -> None:
    starts = []
    for dtype in (torch.float32, torch.bfloat16):
        model = tiny_flux.transformer(1, 1).to(dtype)
        with torch.no_grad():
            before = tiny_flux.velocity(model, 1, 16, 16, dtype)
            starts.append(lora.add(model, "all-linear", 2, 2.0, seed=3))
            assert torch.equal(tiny_flux.velocity(model, 1, 16, 16, dtype), before)
    for name, parameter in starts[0].items():
        assert parameter.dtype == starts[1][name].dtype == torch.float32
        assert torch.equal(parameter, starts[1][name])
        assert ("lora_B" in name) == (not bool(parameter.any()))


def _open(folder: Path) -> FluxPipeline:
    """The backbone with its zero-started gates and output layer well away from zero.

    After the two steps it was trained for, they still hide what the blocks compute.
    """
    pipe = pipeline.load(folder, "fp32", torch.device("cpu"))
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in pipe.transformer.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    return pipe


def _latents(pipe: FluxPipeline) -> torch.Tensor:
    """Two steps' latents: pixels could hide a difference by rounding or saturation."""
    with torch.inference_mode():
        text = encode(pipe, ["a mole"], 64)
        return pipe(
            prompt_embeds=text.tokens,
            pooled_prompt_embeds=text.pooled,
            height=128,
            width=128,
            num_inference_steps=2,
            generator=[torch.Generator().manual_seed(1)],
            output_type="latent",
        ).images


def test_saved_adapter_loads_in_diffusers_and_samples_the_same(here, tmp_path: Path) -> None:
    pipe = _open(here.backbone)
    plain = _latents(pipe)
    weights = lora.add(pipe.transformer, "all-linear", 3, 6.0, seed=5)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in weights.values():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=draw))
    pipe.transformer.eval()
    adapted = _latents(pipe)
    assert float((adapted - plain).abs().mean()) > 0.1

    lora.save(pipe.transformer, tmp_path / "generator", {"text_tokens": 64})
    fresh = _open(here.backbone)
    fresh.load_lora_weights(str(tmp_path / "generator"))
    assert torch.equal(_latents(fresh), adapted)
    with safe_open(tmp_path / "generator" / lora.WEIGHTS, "pt") as file:
        assert file.metadata()[lora.METADATA_KEY] == '{"text_tokens": 64}'
