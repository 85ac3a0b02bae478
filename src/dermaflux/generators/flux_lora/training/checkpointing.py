"""Recomputes the activations of the first transformer blocks in the backward pass.

Saves memory for time, block by block: what the memory plan asks for and no more. Reads and writes
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from dermaflux.generators.flux_lora.model.flops import FluxShape

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel


def recompute(transformer: FluxTransformer2DModel, blocks: int) -> None:
    """Recompute the first `blocks` blocks, double ones before single ones; 0 switches it off.

    Loss and gradients are those without it, bit by bit. Call it before `compile_blocks`.
    """
    if blocks == 0:
        transformer.disable_gradient_checkpointing()
        return
    order: list[nn.Module] = [*transformer.transformer_blocks]
    order += [*transformer.single_transformer_blocks]
    chosen = {id(block) for block in order[: min(blocks, FluxShape.of(transformer.config).blocks)]}

    def run(block: nn.Module, *inputs: Any) -> Any:
        if id(block) in chosen:
            return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
        return block(*inputs)

    transformer.enable_gradient_checkpointing(run)
