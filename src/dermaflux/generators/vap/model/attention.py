"""Attention of tokens to tokens, in heads. Pure."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


def attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """softmax(q k^T / sqrt(d)) v in each head: (B, Q, W) of (B, Q, W), (B, K, W) and (B, K, W)."""
    q, k, v = (_split(part, heads) for part in (queries, keys, values))
    if q.dtype == torch.bfloat16 and not q.is_cuda:
        # There the fused attention takes three times as long in training as these products.
        shares = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(-1)
        mixed: Tensor = shares.to(v.dtype) @ v
    else:
        mixed = scaled_dot_product_attention(q, k, v)
    return mixed.transpose(1, 2).flatten(-2)


def _split(tokens: Tensor, heads: int) -> Tensor:
    """(B, heads, L, W / heads) of (B, L, W)."""
    batch, length, width = tokens.shape
    return tokens.view(batch, length, heads, width // heads).transpose(1, 2)


class SelfAttention(nn.Module):
    """Multi-head self-attention without biases before the projection, as in U-ViT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, W) -> (B, L, W)."""
        queries, keys, values = self.qkv(tokens).chunk(3, -1)
        mixed: Tensor = self.out(attend(queries, keys, values, self.heads))
        return mixed


class CrossAttention(nn.Module):
    """Multi-head attention of tokens to others, without biases before the projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, others: Tensor) -> Tensor:
        """(B, L, W) and (B, K, W) -> (B, L, W)."""
        queries, keys, values = self.query(tokens), self.key(others), self.value(others)
        mixed: Tensor = self.out(attend(queries, keys, values, self.heads))
        return mixed


def mlp(width: int) -> nn.Sequential:
    """The two-layer network of a block, four times as wide inside."""
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


def initialise(module: nn.Module) -> None:
    """Linear weights from a normal of deviation 0.02 and zero biases, as U-ViT starts.

    Embeddings, convolutions and norms keep torch's own start. Weights of the meta device are left.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear) and not part.weight.is_meta:
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
