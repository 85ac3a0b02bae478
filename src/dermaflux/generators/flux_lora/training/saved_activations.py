"""Bytes that autograd keeps of a FLUX transformer between the forward and the backward pass.

Counted from the shape, for an adapter as `lora.add` makes it (base and activations of one dtype,
no autocast) and attention that does not store its scores. Tested against the tensors that autograd
really saves.
"""

from __future__ import annotations

from dataclasses import dataclass

from dermaflux.generators.flux_lora.model.flops import (
    FluxShape,
    LinearShape,
    LoraShape,
    adapted,
    double_block,
    single_block,
)


@dataclass(frozen=True)
class BatchShape:
    """One micro-batch of a bucket."""

    images: int
    image_tokens: int
    text_tokens: int

    @property
    def tokens(self) -> int:
        """Of all its images, image and text."""
        return self.images * (self.image_tokens + self.text_tokens)


@dataclass(frozen=True)
class Precision:
    """How wide activations are, in bytes per number."""

    itemsize: int
    """Of the dtype that the base computes in."""
    norm_itemsize: int
    """Of what the norms of query and key keep: 4 on a CPU, which computes them step by step."""


def block_bytes(
    shape: FluxShape, number: int, batch: BatchShape, adapter: LoraShape, precision: Precision
) -> int:
    """Bytes that block `number` keeps, double blocks counted first."""
    double = number < shape.double_blocks
    layers = double_block(shape.width) if double else single_block(shape.width)
    rows = {
        "image": batch.images * batch.image_tokens,
        "text": batch.images * batch.text_tokens,
        "joint": batch.tokens,
        "once": batch.images,
    }
    wide = batch.tokens * shape.width
    # Query, key, value and output of attention; the feed-forward's hidden layer before its
    # activation; the block's input, and in double blocks the second norm's.
    saved = wide * (4 + 4 + (2 if double else 1))
    if adapter.targets == "all-linear":
        # Shift, scale and gate have a gradient, so what each multiplies is saved.
        saved += wide * (4 if double else 2)
    saved += sum(rows[layer.runs] * layer.inputs for layer in _inputs(layers, adapter))
    for layer in layers:
        if layer.runs == "once":
            saved += batch.images * layer.outputs
        if adapted(layer, adapter):
            saved += rows[layer.runs] * adapter.rank
            if precision.itemsize < 4:
                # Copies of the float32 factors in the dtype they compute in.
                saved += layer.adapter_weights(adapter.rank)
    statistics = 4 * batch.tokens * (3 * shape.heads + 4)
    return saved * precision.itemsize + 2 * wide * precision.norm_itemsize + statistics


def _inputs(layers: list[LinearShape], adapter: LoraShape) -> list[LinearShape]:
    """One layer for each distinct tensor that adapted layers read."""
    chosen = [layer for layer in layers if adapted(layer, adapter)]
    alone = [layer for layer in chosen if not layer.first]
    return alone + list({layer.runs: layer for layer in chosen if layer.first}.values())


def activation_bytes(
    shape: FluxShape,
    batch: BatchShape,
    adapter: LoraShape,
    precision: Precision,
    recomputed: int = 0,
) -> int:
    """Bytes kept by all blocks; of the first `recomputed` ones no more than their input."""
    wide = batch.tokens * shape.width * precision.itemsize
    total = recomputed * wide
    for first, end in ((0, shape.double_blocks), (shape.double_blocks, shape.blocks)):
        whole = end - max(first, min(end, recomputed))
        if whole:
            total += whole * block_bytes(shape, first, batch, adapter, precision)
    return total + wide
