"""The fine-tuned LoRA as a file for other programs: `dermaflux export-lora OUTPUT`.

Reads models/generator/; writes the file it is asked for.
"""

from __future__ import annotations

from pathlib import Path

import torch

from dermaflux import paths
from dermaflux.errors import InputError
from dermaflux.generators.flux_lora.files import adapter_bytes, adapter_file
from dermaflux.generators.flux_lora.model import lora

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_NAMINGS = ("kohya", "diffusers")


def export(output: Path, naming: str, dtype: str, folder: Path = paths.GENERATOR) -> None:
    """Write the adapter in `folder` to `output`; `fp32` is exact, `bf16` rounds it.

    Raises `InputError` for an unknown format or dtype, or when there is no adapter.
    """
    for name, value, known in (("format", naming, _NAMINGS), ("dtype", dtype, (*DTYPES,))):
        if value not in known:
            raise InputError(f"--{name} is {value!r}; give one of {', '.join(known)}")
    if output.suffix != ".safetensors":
        raise InputError(f"{output} does not end in .safetensors; give the file a name that does")
    source = folder / lora.WEIGHTS
    if not source.exists():
        raise InputError(f"{folder} holds no {lora.WEIGHTS}; run the stage `finetune`")
    adapter = adapter_file.read(source, stage="the stage finetune")
    if naming == "kohya":
        content = adapter_bytes.kohya_bytes(adapter.layers, adapter.metadata, DTYPES[dtype])
    else:
        layers = {name: layer.to(DTYPES[dtype]) for name, layer in adapter.layers.items()}
        content = adapter_bytes.diffusers_bytes(layers, adapter.metadata)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.partial")
    partial.write_bytes(content)
    partial.rename(output)
    print(
        f"{output}: {len(adapter.layers):,} layers in {naming} naming, {dtype}, "
        f"{len(content) / 1e6:,.1f} MB"
    )
