"""Floating-point operations of a FLUX transformer, from its shape alone.

A multiply-add counts as two. Linear layers and attention are counted; norms, activations and
rotations, under one per cent, are not. What a token meets are the blocks' own weights, not the
modulation, which runs once per image. Layer shapes: black-forest-labs/flux, `modules/layers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Runs = Literal["image", "text", "joint", "once"]


@dataclass(frozen=True)
class FluxShape:
    """What decides the cost of a FLUX transformer."""

    width: int
    heads: int
    double_blocks: int
    single_blocks: int
    channels: int
    """Of a packed latent token, going in and coming out."""
    text_width: int
    pooled_width: int
    guidance: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> FluxShape:
        """From a FluxTransformer2DModel's config."""
        return cls(
            width=config["attention_head_dim"] * config["num_attention_heads"],
            heads=config["num_attention_heads"],
            double_blocks=config["num_layers"],
            single_blocks=config["num_single_layers"],
            channels=config["in_channels"],
            text_width=config["joint_attention_dim"],
            pooled_width=config["pooled_projection_dim"],
            guidance=bool(config["guidance_embeds"]),
        )

    @property
    def blocks(self) -> int:
        """Double and single blocks, in the order they run."""
        return self.double_blocks + self.single_blocks


FLUX_1_DEV = FluxShape(3072, 24, 19, 38, 64, 4096, 768, True)


@dataclass(frozen=True)
class LoraShape:
    """A low-rank adapter on the blocks' Linear layers."""

    rank: int
    targets: Literal["attention", "all-linear"]


@dataclass(frozen=True)
class LinearShape:
    """One Linear of a block."""

    inputs: int
    outputs: int
    runs: Runs
    """On image tokens, text tokens, both, or once per image."""
    attention: bool = False
    """Among the `attention` targets."""
    first: bool = False
    """Reads the block's normalised input."""

    def weights(self) -> int:
        """Entries of the matrix."""
        return self.inputs * self.outputs

    def adapter_weights(self, rank: int) -> int:
        """Entries of both factors of its adapter."""
        return rank * (self.inputs + self.outputs)


def double_block(width: int) -> list[LinearShape]:
    """Linear layers of a block with separate weights for image and text."""
    layers = []
    for runs in ("image", "text"):
        layers += [LinearShape(width, 6 * width, "once")]
        layers += [LinearShape(width, width, runs, attention=True, first=True) for _ in range(3)]
        layers += [LinearShape(width, width, runs, attention=True)]
        layers += [LinearShape(width, 4 * width, runs)]
        layers += [LinearShape(4 * width, width, runs)]
    return layers


def single_block(width: int) -> list[LinearShape]:
    """Linear layers of a block in which image and text share weights."""
    return [
        LinearShape(width, 3 * width, "once"),
        *[LinearShape(width, width, "joint", attention=True, first=True) for _ in range(3)],
        LinearShape(width, 4 * width, "joint", first=True),
        LinearShape(5 * width, width, "joint"),
    ]


def adapted(layer: LinearShape, adapter: LoraShape | None) -> bool:
    """Whether the adapter holds two factors for this layer."""
    return adapter is not None and (adapter.targets == "all-linear" or layer.attention)


def forward(
    shape: FluxShape, image_tokens: int, text_tokens: int, adapter: LoraShape | None = None
) -> float:
    """FLOP of one image's forward pass; an adapter that is not merged adds its own products."""
    blocks = sum(
        _block(shape, number, image_tokens, text_tokens, adapter) for number in range(shape.blocks)
    )
    width = shape.width
    outside = image_tokens * shape.channels * width * 2 + text_tokens * shape.text_width * width
    once = shape.pooled_width * width + width * width  # pooled text
    once += (1 + shape.guidance) * (256 * width + width * width)  # time, and guidance
    once += 2 * width * width  # modulation of the final norm
    return blocks + 2.0 * (outside + once)


def training_step(
    shape: FluxShape, image_tokens: int, text_tokens: int, adapter: LoraShape, recomputed: int = 0
) -> float:
    """FLOP of one image's training step with a frozen base: forward, and gradients by input.

    The base has no gradient by weight, the adapter has both. The products of attention's backward
    pass count four, as MFU does; fused kernels compute the scores a fifth time. The first
    `recomputed` blocks run forward twice; leave it at 0 for the numerator of MFU.
    """
    tokens = (image_tokens, text_tokens)
    total = forward(shape, image_tokens, text_tokens, adapter)
    for number in range(shape.blocks):
        total += _backward(shape, number, tokens, adapter)
        if number < recomputed:
            total += _block(shape, number, *tokens, adapter)
    return total + 2.0 * image_tokens * shape.width * shape.channels


def _rows(layer: LinearShape, image_tokens: int, text_tokens: int) -> int:
    counts = {"image": image_tokens, "text": text_tokens, "once": 1}
    return counts.get(layer.runs, image_tokens + text_tokens)


def _layers(shape: FluxShape, number: int) -> list[LinearShape]:
    """Of block `number`, counted from the first double block."""
    return double_block(shape.width) if number < shape.double_blocks else single_block(shape.width)


def _attention(shape: FluxShape, image_tokens: int, text_tokens: int) -> float:
    """Scores and weighted values over the joint sequence."""
    return 4.0 * (image_tokens + text_tokens) ** 2 * shape.width


def _block(
    shape: FluxShape, number: int, image_tokens: int, text_tokens: int, adapter: LoraShape | None
) -> float:
    total = _attention(shape, image_tokens, text_tokens)
    for layer in _layers(shape, number):
        weights = layer.weights()
        if adapter is not None and adapted(layer, adapter):
            weights += layer.adapter_weights(adapter.rank)
        total += 2.0 * weights * _rows(layer, image_tokens, text_tokens)
    return total


def _backward(shape: FluxShape, number: int, tokens: tuple[int, int], adapter: LoraShape) -> float:
    total = 2.0 * _attention(shape, *tokens)
    for layer in _layers(shape, number):
        rows = _rows(layer, *tokens)
        # The first block's input and the time embedding carry no gradient. An adapted modulation
        # gives the first block's normalised input one.
        constant = layer.runs == "once" or (
            number == 0 and layer.first and adapter.targets == "attention"
        )
        if not constant:
            total += 2.0 * layer.weights() * rows
        if adapted(layer, adapter):
            total += 4.0 * layer.adapter_weights(adapter.rank) * rows
            if constant:
                total -= 2.0 * adapter.rank * layer.inputs * rows
    return total
