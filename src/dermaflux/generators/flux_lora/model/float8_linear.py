"""Frozen Linear layers whose weight is stored in 8 bits, one scale per row.

The two libraries (torchao's Float8WeightOnly, diffusers' layerwise casting) hand autograd the
dequantized weight, which it keeps until the backward pass: over a model that saves nothing. Here,
as in bitsandbytes' 4-bit layer, the 8-bit weight is what is saved, and it is dequantized twice.
Reads and writes nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_LARGEST = torch.finfo(torch.float8_e4m3fn).max


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(O, I) -> float8_e4m3fn (O, I) and float32 scale (O, 1), largest entry of a row at 448."""
    scale = weight.abs().amax(dim=1, keepdim=True).float().clamp(min=1e-12) / _LARGEST
    return (weight.float() / scale).to(torch.float8_e4m3fn), scale


class _Product(torch.autograd.Function):
    """x W^T with gradient by x alone."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return functional.linear(inputs, dequantize(weight, scale, inputs.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        weight, scale = ctx.saved_tensors
        return gradient @ dequantize(weight, scale, gradient.dtype), None, None


def dequantize(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Float8 (O, I) and scale (O, 1) -> `dtype` (O, I)."""
    return weight.to(dtype) * scale.to(dtype)


class Float8Linear(nn.Linear):
    """A Linear that computes in its input's dtype and cannot be trained itself."""

    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        """Take over a layer's weight, quantized, and its bias."""
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        weight, scale = quantize(linear.weight.detach())
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("scale", scale)
        if linear.bias is not None:
            self.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        product: Tensor = _Product.apply(inputs, self.weight, self.scale)
        return product if self.bias is None else product + self.bias.to(product.dtype)

    def _apply(self, fn: Any, recurse: bool = True) -> Float8Linear:
        # `.to(bfloat16)` of a whole model must move these tensors and never change their type.
        weight, scale = self.weight.detach(), self.scale
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.weight.dtype != weight.dtype:
            self.weight = nn.Parameter(weight.to(self.weight.device), requires_grad=False)
            self.scale = scale.to(self.weight.device)
        return self
