from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from safetensors import safe_open

from dermaflux.generators import lora, pipeline
from dermaflux.generators.sampling import Sampler, sample


@pytest.mark.parametrize(
    ("targets", "expected"), [("attention", 104_595_456), ("all-linear", 343_670_784)]
)
def test_adapter_sizes_on_flux_1_dev(targets: lora.Targets, expected: int) -> None:
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        flux = FluxTransformer2DModel(guidance_embeds=True)
        assert lora.count(flux, targets, 64) == expected
        flux.add_adapter(lora.config(flux, targets, 64, 64))
    adapted = sum(p.numel() for name, p in flux.named_parameters() if "lora_" in name)
    assert adapted == expected


def _open(folder: Path) -> FluxPipeline:
    """The backbone with an output layer that is no longer near its zero start, so blocks matter."""
    pipe = pipeline.load(folder, "fp32", torch.device("cpu"))
    draw = torch.Generator().manual_seed(1)
    weight = pipe.transformer.proj_out.weight
    with torch.no_grad():
        weight.copy_(0.1 * torch.randn(weight.shape, generator=draw))
    return pipe


def test_saved_adapter_loads_in_diffusers_and_samples_the_same(here, tmp_path: Path) -> None:
    pipe = _open(here.backbone)
    plain = sample(pipe, Sampler(2, 3.5, 128, 64), ["a mole"], [1])
    weights = lora.add(pipe.transformer, "all-linear", 3, 6.0, seed=5)
    assert sum(p.numel() for p in weights.values()) == lora.count(
        pipeline.load(here.backbone, "fp32").transformer, "all-linear", 3
    )
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in weights.values():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=draw))
    pipe.transformer.eval()
    adapted = sample(pipe, Sampler(2, 3.5, 128, 64), ["a mole"], [1])
    assert (adapted != plain).mean() > 0.1

    lora.save(pipe.transformer, tmp_path / "generator", {"text_tokens": 64})
    fresh = _open(here.backbone)
    fresh.load_lora_weights(str(tmp_path / "generator"))
    loaded = sample(fresh, Sampler(2, 3.5, 128, 64), ["a mole"], [1])
    assert (loaded == adapted).all()
    with safe_open(tmp_path / "generator" / lora.WEIGHTS, "pt") as file:
        assert file.metadata()[lora.POLICY_KEY] == '{"text_tokens": 64}'
