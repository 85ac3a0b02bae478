"""Opens a backbone with its adapter for sampling, merged into the weights where they allow it.

Merging spares two products a layer. Reads models/backbone/ and the adapter's folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dermaflux.core.devices import automatic_device, require_gpu
from dermaflux.core.torch_compile import compile_blocks
from dermaflux.errors import InputError
from dermaflux.generators.flux_lora.model import lora, pipeline
from dermaflux.generators.flux_lora.model.options import BaseDtype
from dermaflux.generators.flux_lora.model.quantize import BLOCKS, quantize, quantize_text, replace

if TYPE_CHECKING:
    from diffusers import FluxPipeline

_FLOAT8_CAPABILITY = (8, 9)
_SHAPES = 64  # text lengths times batch sizes that one run may meet


def open_generator(
    folder: Path, backbone: Path, base_dtype: BaseDtype, compile: bool = False
) -> FluxPipeline:
    """The pipeline that `folder`'s adapter was trained for, ready to sample.

    fp32 and bf16: merged. fp8: merged in bf16, then quantized; GPUs of compute capability 8.9 and
    above also multiply in 8 bits, with one scale per row and token (torchao), others widen the
    weights. nf4: not merged, since 4-bit weights would round the adapter away. Raises `InputError`
    for a backbone that cannot be read, a combination that cannot be compiled, and a large backbone
    on a CPU that nobody asked for.
    """
    device = automatic_device()
    if device.type == "cpu":
        transformer = pipeline.on_meta(backbone)["transformer"]
        count = sum(parameter.numel() for parameter in transformer.parameters())
        require_gpu("the transformer of backbone.repository", count, device)
    if base_dtype == "fp8":
        pipe = _merge(pipeline.load(backbone, "bf16", torch.device("cpu")), folder)
        if _multiplies_in_8_bits(device):
            replace(pipe.transformer, BLOCKS, (), _dynamic(), device)
            quantize_text(pipe, "fp8", device)
        else:
            quantize(pipe, "fp8", device)
        pipe.to(device)
    elif base_dtype == "nf4":
        pipe = pipeline.load(backbone, "nf4", device)
        pipe.load_lora_weights(folder, weight_name=lora.WEIGHTS)
    else:
        pipe = _merge(pipeline.load(backbone, base_dtype, device), folder)
    if device.type == "cpu":
        pipe.vae.decoder.to(memory_format=torch.channels_last)
    if compile:
        compile_blocks(pipe.transformer, _SHAPES)
    return pipe


def _merge(pipe: FluxPipeline, folder: Path) -> FluxPipeline:
    pipe.load_lora_weights(folder, weight_name=lora.WEIGHTS)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    return pipe


def _multiplies_in_8_bits(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _FLOAT8_CAPABILITY


def _dynamic() -> Any:
    """Puts a Linear's weight in float8, with its input quantized row by row when it runs."""
    try:
        from torchao.quantization import (
            Float8DynamicActivationFloat8WeightConfig,
            PerRow,
            quantize_,
        )
    except ImportError:
        raise InputError(
            "base_dtype fp8 needs torchao for sampling on this GPU; run "
            "`pip install dermaflux[quantization]` or set synthesize.flux_lora.base_dtype to bf16"
        ) from None
    config = Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())

    def make(linear: nn.Linear) -> nn.Module:
        quantize_(linear, config)
        return linear

    return make
