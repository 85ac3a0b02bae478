"""What fine-tuning FLUX.1-dev takes on 24, 48, 80 and 141 GB cards, calculated.

Nothing is loaded or run: bytes come from the memory plan, images per second from the FLOP model at
half of the card's rate. Prints the table of docs/generator.md and writes JSON:
`python benchmarks/flux_memory.py --output benchmarks/results/flux_memory.json`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from dermaflux.errors import InputError
from dermaflux.generators.flux_lora.model.flops import FLUX_1_DEV, LoraShape, training_step
from dermaflux.generators.flux_lora.model.options import BaseDtype
from dermaflux.generators.flux_lora.training.memory_plan import GIB, MemoryPlan, Training, fit
from dermaflux.generators.flux_lora.training.saved_activations import BatchShape

ADAPTER = LoraShape(64, "attention")
TRAINABLE = 104_595_456
MIX = {64: 400_901, 256: 22_140, 1024: 85_303}
"""Images of the paper by image tokens: 128, 256 and 512 pixels."""
TEXT = range(64, 305, 16)
"""Caption lengths of the buckets, in tokens."""
MEAN_TEXT = 144
"""Rounded-up mean of the captions, at which images per second are stated."""
MFU = 0.5


@dataclass(frozen=True)
class Card:
    """A GPU."""

    name: str
    memory: float
    """GiB that the driver reports."""
    rate: float
    """Dense bf16 TFLOP/s with float32 accumulation: 0.8 of the sheet, which an H200 reaches."""
    batch_tokens: int


CARDS = [
    Card("24 GB (RTX 4090)", 23.5, 132, 4096),
    Card("48 GB (L40S)", 44.4, 290, 8192),
    Card("80 GB (H100)", 79.1, 790, 8192),
    Card("141 GB (H200)", 139.8, 790, 12288),
]


def parts() -> dict[str, nn.Module]:
    """FLUX.1-dev's four models without storage, from the figures in its configurations."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    clip = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
    )
    t5 = T5Config(
        d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    down, up = ["DownEncoderBlock2D"] * 4, ["UpDecoderBlock2D"] * 4
    with torch.device("meta"):
        return {
            "transformer": FluxTransformer2DModel(guidance_embeds=True),
            "text_encoder": CLIPTextModel(clip),
            "text_encoder_2": T5EncoderModel(t5),
            "vae": AutoencoderKL(
                down_block_types=down, up_block_types=up, block_out_channels=[128, 256, 512, 512],
                layers_per_block=2, latent_channels=16,
            ),
        }  # fmt: skip


def batches(batch_tokens: int) -> tuple[BatchShape, ...]:
    """The fullest micro-batch of every bucket."""
    return tuple(
        BatchShape(max(1, batch_tokens // (image + text)), image, text)
        for image in MIX
        for text in TEXT
    )


def images_per_second(card: Card, recomputed: int) -> dict[str, float]:
    """At 50 % of the card's rate: by image side in pixels, and for the paper's mix."""
    seconds = {
        tokens: training_step(FLUX_1_DEV, tokens, MEAN_TEXT, ADAPTER, recomputed)
        / (MFU * card.rate * 1e12)
        for tokens in MIX
    }
    mixed = sum(MIX.values()) / sum(MIX[tokens] * seconds[tokens] for tokens in MIX)
    sides = {str(int(tokens**0.5) * 16): 1 / seconds[tokens] for tokens in MIX}
    return {**sides, "mix": mixed}


def row(models: dict[str, nn.Module], card: Card, base: BaseDtype, cache: bool) -> dict[str, Any]:
    """One line of the table; `fits` is false where no number of recomputed blocks is enough."""
    run = Training(base, ADAPTER, TRAINABLE, False, cache, "auto", batches(card.batch_tokens))
    line: dict[str, Any] = {
        "card": card.name, "base_dtype": base, "text_cache": cache,
        "batch_tokens": card.batch_tokens,
    }  # fmt: skip
    try:
        found: MemoryPlan = fit(models, FLUX_1_DEV, run, "cuda", card.memory * GIB)
    except InputError as error:
        return {**line, "fits": False, "reason": str(error)}
    rates = images_per_second(card, found.recomputed)
    return {
        **line,
        "fits": True,
        "peak_gib": round(found.total / GIB, 1),
        "recomputed_blocks": found.recomputed,
        "images_per_second_calculated": {side: round(rate, 2) for side, rate in rates.items()},
    }


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    output = parser.parse_args().output
    models = parts()
    bases: list[BaseDtype] = [base for base in get_args(BaseDtype) if base != "fp32"]
    rows = [
        row(models, card, base, cache)
        for card in CARDS
        for base in bases
        for cache in (False, True)
    ]
    print("| card | base_dtype | text_cache | batch_tokens | peak GiB | recomputed | images/s |")
    print("|---|---|---|---|---|---|---|")
    for line in rows:
        told = "does not fit | - | -"
        if line["fits"]:
            rate = line["images_per_second_calculated"]["mix"]
            told = f"{line['peak_gib']} | {line['recomputed_blocks']} of 57 | {rate}"
        cache = str(line["text_cache"]).lower()
        print(
            f"| {line['card']} | {line['base_dtype']} | {cache} | {line['batch_tokens']} | {told} |"
        )
    described = {
        "note": "calculated, not run at full size",
        "adapter": {"rank": 64, "targets": "attention", "parameters": TRAINABLE},
        "mfu": MFU,
        "text_tokens": MEAN_TEXT,
        "cards": {card.name: {"gib": card.memory, "tflops": card.rate} for card in CARDS},
        "rows": rows,
    }
    output.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
