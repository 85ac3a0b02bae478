from __future__ import annotations

import pytest
import tiny_flux
import torch

from dermaflux.generators.flux_lora.model import lora
from dermaflux.generators.flux_lora.model.options import Targets
from dermaflux.generators.flux_lora.training.checkpointing import recompute


@pytest.mark.parametrize("targets", ["attention", "all-linear"])
def test_gradients_are_those_without_it_bit_by_bit(targets: Targets) -> None:
    model = tiny_flux.transformer()
    weights = lora.add(model, targets, 4, 4.0, seed=0)
    tiny_flux.stir(weights)
    model.train()
    wanted = tiny_flux.gradients(model, weights, 2, 16, 16)
    assert float(wanted.abs().sum()) > 0
    for blocks in (1, 3, 6):
        recompute(model, blocks)
        assert torch.equal(tiny_flux.gradients(model, weights, 2, 16, 16), wanted)
    recompute(model, 0)
    assert torch.equal(tiny_flux.gradients(model, weights, 2, 16, 16), wanted)


def test_only_the_first_blocks_run_twice() -> None:
    model = tiny_flux.transformer()
    weights = lora.add(model, "attention", 4, 4.0, seed=0)
    runs: dict[int, int] = {}
    blocks = [*model.transformer_blocks, *model.single_transformer_blocks]
    for number, block in enumerate(blocks):

        def count(module: object, inputs: object, number: int = number) -> None:
            runs[number] = runs.get(number, 0) + 1

        block.register_forward_pre_hook(count)
    recompute(model.train(), 3)
    tiny_flux.gradients(model, weights, 1, 16, 16)
    assert [runs[number] for number in range(6)] == [2, 2, 2, 1, 1, 1]
