from __future__ import annotations

import pytest
import tiny_flux
from torch.utils.flop_counter import FlopCounterMode

from dermaflux.generators.flux_lora.model import flops, lora
from dermaflux.generators.flux_lora.model.flops import FLUX_1_DEV, FluxShape, LoraShape
from dermaflux.generators.flux_lora.model.options import Targets
from dermaflux.generators.flux_lora.training.checkpointing import recompute

TERA = 1e12


@pytest.mark.parametrize(
    ("image_tokens", "text_tokens", "expected"),
    [
        (64, 512, 7.69), (64, 160, 2.94), (64, 128, 2.51), (256, 256, 6.81), (256, 128, 5.07),
        (1024, 512, 21.50), (1024, 128, 15.81), (4096, 512, 74.38), (4096, 128, 67.04),
    ],
)  # fmt: skip
def test_forward_pass_of_flux_1_dev(image_tokens: int, text_tokens: int, expected: float) -> None:
    """Independent count from black-forest-labs/flux's layer shapes."""
    found = flops.forward(FLUX_1_DEV, image_tokens, text_tokens) / TERA
    assert found == pytest.approx(expected, abs=0.0051)


@pytest.mark.parametrize(
    ("image_tokens", "text_tokens", "plain", "recomputed"),
    [(64, 512, 16.2, 24.1), (64, 128, 5.2, 7.8), (256, 512, 21.9, 32.5), (1024, 128, 33.7, 49.9)],
)
def test_training_step_of_flux_1_dev(
    image_tokens: int, text_tokens: int, plain: float, recomputed: float
) -> None:
    """Within one per cent of that count, which has fewer adapter layers (fused names)."""
    adapter = LoraShape(64, "all-linear")
    step = flops.training_step(FLUX_1_DEV, image_tokens, text_tokens, adapter) / TERA
    assert step == pytest.approx(plain, rel=0.014)
    twice = flops.training_step(FLUX_1_DEV, image_tokens, text_tokens, adapter, 57) / TERA
    assert twice == pytest.approx(recomputed, rel=0.01)


@pytest.mark.parametrize("targets", ["attention", "all-linear"])
@pytest.mark.parametrize("recomputed", [0, 2, 4])
def test_equals_what_the_kernels_do(targets: Targets, recomputed: int) -> None:
    model = tiny_flux.transformer(2, 2)
    shape, adapter = FluxShape.of(model.config), LoraShape(4, targets)
    lora.add(model, targets, 4, 4.0, seed=0)
    recompute(model.train(), recomputed)
    images, image_tokens, text_tokens = 2, 64, 48
    with FlopCounterMode(display=False) as counter:
        velocity = tiny_flux.velocity(model, images, image_tokens, text_tokens)
        forward = counter.get_total_flops()
        velocity.square().mean().backward()
    tokens = (image_tokens, text_tokens)
    assert forward == pytest.approx(images * flops.forward(shape, *tokens, adapter), rel=1e-6)
    # The counter adds the scores that a fused backward kernel computes again: half a forward pass
    # of attention, whose whole costs 4 x tokens^2 x width in each block.
    again = 0.5 * 4 * sum(tokens) ** 2 * shape.width * shape.blocks
    expected = flops.training_step(shape, *tokens, adapter, recomputed) + again
    assert counter.get_total_flops() == pytest.approx(images * expected, rel=0.005)
