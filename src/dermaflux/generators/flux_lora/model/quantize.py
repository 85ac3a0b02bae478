"""Stores a frozen model's Linear weights in 8 or 4 bits, layer by layer.

Each layer goes to its device and is quantized there, so that at no moment more than one is stored
twice. The same lines run with and without a GPU. Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from dermaflux.errors import InputError

if TYPE_CHECKING:
    from diffusers import FluxPipeline

QuantizedDtype = Literal["fp8", "nf4"]
BLOCKS = ("transformer_blocks.", "single_transformer_blocks.")
"""Embedders and final layer of the transformer are small and sensitive, and stay in bf16."""
T5_BLOCKS = ("encoder.",)
T5_EXCLUDED = (".wo",)
"""T5 casts the input of `wo` to the dtype of the stored weight, which must be one to compute in."""


def quantize(pipe: FluxPipeline, kind: QuantizedDtype, device: torch.device) -> None:
    """Quantize the transformer's blocks and T5's in place; `InputError` without the package."""
    if pipe.transformer is not None:
        replace(pipe.transformer, BLOCKS, (), _maker(kind), device)
        # By this peft picks its 4-bit layers.
        pipe.transformer.is_loaded_in_4bit = kind == "nf4"
    quantize_text(pipe, kind, device)


def quantize_text(pipe: FluxPipeline, kind: QuantizedDtype, device: torch.device) -> None:
    """Quantize T5's blocks in place, where the pipeline has a T5."""
    if pipe.text_encoder_2 is not None:
        replace(pipe.text_encoder_2, T5_BLOCKS, T5_EXCLUDED, _maker(kind), device)


def _maker(kind: QuantizedDtype) -> Callable[[nn.Linear], nn.Module]:
    return _four_bit_linear() if kind == "nf4" else _eight_bit_linear


def replace(
    model: nn.Module,
    under: tuple[str, ...],
    excluded: tuple[str, ...],
    make: Callable[[nn.Linear], nn.Module],
    device: torch.device,
) -> None:
    """Replace each Linear whose name starts with one of `under`, ends with none of `excluded`."""
    for name, module in list(model.named_modules()):
        chosen = name.startswith(under) and not (excluded and name.endswith(excluded))
        if type(module) is nn.Linear and chosen:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, make(module.to(device)))


def _eight_bit_linear(linear: nn.Linear) -> nn.Module:
    from dermaflux.generators.flux_lora.model.float8_linear import Float8Linear

    return Float8Linear(linear)


def _four_bit_linear() -> Callable[[nn.Linear], nn.Module]:
    """bitsandbytes' Linear4bit: normal floats in blocks of 64, their scales quantized as well."""
    try:
        import bitsandbytes
    except ImportError:
        raise InputError(
            "base_dtype nf4 needs bitsandbytes; run `pip install dermaflux[quantization]` or set "
            "base_dtype to fp8"
        ) from None
    layers: Any = bitsandbytes.nn

    def make(linear: nn.Linear) -> nn.Module:
        layer = layers.Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            compute_dtype=linear.weight.dtype,
            compress_statistics=True,
            quant_type="nf4",
            device="meta",
        )
        layer.weight = layers.Params4bit(
            linear.weight.detach(), requires_grad=False, compress_statistics=True,
            quant_type="nf4", module=layer,
        )  # fmt: skip
        if linear.bias is not None:
            layer.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
        quantized: nn.Module = layer.to(linear.weight.device)
        return quantized

    return make
