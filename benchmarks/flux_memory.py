"""What fine-tuning FLUX.1-dev takes with either prompt padding, by card and for the paper's run.

Nothing is loaded or run: bytes come from the memory plan, hours from the FLOP model at half of the
card's rate. Captions have the published lengths (`stand_in`). Writes JSON, and its tables into the
docs, between comments with the tables' names:

    python benchmarks/flux_memory.py --output benchmarks/results/flux_memory.json \\
        --docs docs/generator.md
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import stand_in
import torch
from torch import nn

from dermaflux.errors import InputError
from dermaflux.generators.flux_lora.model.flops import FLUX_1_DEV, LoraShape, training_step
from dermaflux.generators.flux_lora.model.options import BaseDtype, PromptPadding
from dermaflux.generators.flux_lora.model.prompt_padding import text_length
from dermaflux.generators.flux_lora.training.memory_plan import (
    GIB,
    MemoryPlan,
    Training,
    fit,
    usable,
)
from dermaflux.generators.flux_lora.training.saved_activations import BatchShape

ADAPTER = LoraShape(64, "attention")
TRAINABLE = 104_595_456
EPOCHS, BATCH_TOKENS = 5, 12288
"""Of profiles/paper.yaml."""
SIDES = {64: 128, 256: 256, 1024: 512}
"""Pixels of an image's side by its tokens."""
MIX = {tokens: stand_in.PAPER_MIX[side] for tokens, side in SIDES.items()}
"""Images of the paper by image tokens."""
PADDINGS: tuple[PromptPadding, ...] = get_args(PromptPadding)
T5_BLOCKS, T5_WIDTH, T5_HIDDEN = 24, 4096, 10240
CLIP_WIDTH = 768
MFU = 0.5
_BF16_FITS = 64
"""GiB from which a smaller base gains nothing."""


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
    Card("80 GB (H100)", 79.1, 790, 12288),
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


@cache
def text_shares(padding: PromptPadding) -> dict[int, float]:
    """T5 tokens of a prompt -> share of the captions."""
    lengths = stand_in.caption_lengths(10_000)
    counts = Counter(text_length(length, padding) for length in lengths)
    return {length: count / len(lengths) for length, count in sorted(counts.items())}


def batches(padding: PromptPadding, batch_tokens: int) -> tuple[BatchShape, ...]:
    """The fullest micro-batch of every bucket."""
    return tuple(
        BatchShape(max(1, batch_tokens // (image + text)), image, text)
        for image in MIX
        for text in text_shares(padding)
    )


def text_encoding(tokens: int) -> float:
    """FLOP of T5-XXL's encoder for one prompt; CLIP's, under one per cent of it, are left out."""
    weights = T5_BLOCKS * (4 * T5_WIDTH**2 + 3 * T5_WIDTH * T5_HIDDEN)
    return 2.0 * weights * tokens + 4.0 * T5_BLOCKS * tokens**2 * T5_WIDTH


def mean_flop(padding: PromptPadding, recomputed: int) -> tuple[float, float]:
    """FLOP of an image's training step, and of encoding its caption, over the paper's images."""
    images = sum(MIX.values())
    training = sum(
        count * share * training_step(FLUX_1_DEV, image, text, ADAPTER, recomputed)
        for image, count in MIX.items()
        for text, share in text_shares(padding).items()
    )
    encoding = sum(share * text_encoding(text) for text, share in text_shares(padding).items())
    return training / images, encoding


def images_per_second(card: Card, padding: PromptPadding, recomputed: int, cached: bool) -> float:
    """Of the paper's mix at 50 % of the card's rate; captions are encoded unless cached."""
    training, encoding = mean_flop(padding, recomputed)
    return MFU * card.rate * 1e12 / (training + (0 if cached else encoding))


def row(models: dict[str, nn.Module], card: Card, base: BaseDtype, cached: bool) -> dict[str, Any]:
    """One line of the table; a padding is null where no number of recomputed blocks is enough."""
    line: dict[str, Any] = {
        "card": card.name, "base_dtype": base, "text_cache": cached,
        "batch_tokens": card.batch_tokens,
    }  # fmt: skip
    for padding in PADDINGS:
        shapes = batches(padding, card.batch_tokens)
        run = Training(base, ADAPTER, TRAINABLE, False, cached, "auto", shapes)
        try:
            found: MemoryPlan = fit(models, FLUX_1_DEV, run, "cuda", usable(card.memory * GIB))
        except InputError:
            line[padding] = None
            continue
        rate = images_per_second(card, padding, found.recomputed, cached)
        line[padding] = {
            "peak_gib": round(found.total / GIB, 1),
            "recomputed_blocks": found.recomputed,
            "images_per_second": round(rate, 2),
        }
    return line


def steps(padding: PromptPadding) -> int:
    """Micro-batches of the paper's run."""
    per_epoch = sum(
        -(-round(MIX[shape.image_tokens] * text_shares(padding)[shape.text_tokens]) // shape.images)
        for shape in batches(padding, BATCH_TOKENS)
    )
    return EPOCHS * per_epoch


def run(padding: PromptPadding) -> dict[str, Any]:
    """The paper's run with no block recomputed, on a GPU of 790 TFLOP/s."""
    training, encoding = mean_flop(padding, 0)
    images, shares = EPOCHS * sum(MIX.values()), text_shares(padding)
    hours = images * training / (MFU * CARDS[-1].rate * 1e12) / 3600
    mean = sum(length * share for length, share in shares.items())
    usual = max(shares, key=lambda length: shares[length])  # the length of most captions
    sizes = {SIDES[image]: BATCH_TOKENS // (image + usual) for image in MIX}
    return {
        "text_tokens_mean": round(mean, 1),
        "micro_batch": {str(side): images for side, images in sizes.items()},
        "weight_512_to_128": round(sizes[128] / sizes[512], 1),
        "micro_batches": steps(padding),
        "exaflop": round(images * training / 1e18, 2),
        "hours_text_cached": round(hours, 1),
        "hours_text_encoded": round(hours * (1 + encoding / training), 1),
        "encoding_percent": round(100 * encoding / training, 1),
        "text_cache_terabytes": round(
            sum(MIX.values()) * (mean * T5_WIDTH + CLIP_WIDTH) * 2 / 1e12, 2
        ),
    }


def tables(results: dict[str, Any]) -> dict[str, str]:
    """The tables of the docs, by name, from the JSON."""
    return {"cards": _cards(results["rows"]), "run": _run(results["run"])}


def _cards(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| card | base_dtype | text_cache | batch_tokens | peak GiB, trim / pad512 "
        "| recomputed of 57 | images/s, limit |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in rows:
        cells = [
            " / ".join("-" if line[p] is None else str(line[p][name]) for p in PADDINGS)
            for name in ("peak_gib", "recomputed_blocks", "images_per_second")
        ]
        if line["trim"] is None and line["pad512"] is None:
            cells = ["does not fit", "-", "-"]
        cached = str(line["text_cache"]).lower()
        start = f"| {line['card']} | {line['base_dtype']} | {cached} | {line['batch_tokens']}"
        lines.append(f"{start} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _run(found: dict[str, Any]) -> str:
    def line(name: str, form: str, key: str) -> str:
        cells = [form.format(found[padding][key]) for padding in PADDINGS]
        return f"| {name} | {' | '.join(cells)} |"

    sizes = [
        " / ".join(str(n) for n in found[padding]["micro_batch"].values()) for padding in PADDINGS
    ]
    return "\n".join(
        [
            f"| the paper's run, {EPOCHS} epochs | {' | '.join(f'`{p}`' for p in PADDINGS)} |",
            "|---|---|---|",
            line("T5 tokens of a prompt, mean", "{:.0f}", "text_tokens_mean"),
            f"| images of a micro-batch, 128 / 256 / 512 pixels | {' | '.join(sizes)} |",
            line(
                "weight of an image of 512 pixels to one of 128, `micro_batches: 1`",
                "{:.1f}",
                "weight_512_to_128",
            ),
            line("micro-batches", "{:,}", "micro_batches"),
            line("arithmetic of training, 10^18 FLOP", "{:.1f}", "exaflop"),
            line("hours, captions encoded in every step", "{:.1f}", "hours_text_encoded"),
            line("hours, `text_cache: true`", "{:.1f}", "hours_text_cached"),
            line("encoding, share of training", "{:.0f} %", "encoding_percent"),
            line("text cache on disk, TB", "{:.1f}", "text_cache_terabytes"),
        ]
    )


def written(page: str, blocks: dict[str, str], script: str = "flux_memory") -> str:
    """A page with each block of a script between its two comments."""
    for name, block in blocks.items():
        start, end = f"<!-- {script}: {name} -->", f"<!-- end of {name} -->"
        pattern = re.compile(f"({re.escape(start)}\n).*?(\n{re.escape(end)})", re.DOTALL)
        page, count = pattern.subn(lambda found, b=block: found[1] + b + found[2], page)
        if count != 1:
            raise SystemExit(f"the page has {count} blocks {start} and not 1; add it once")
    return page


def calculated() -> dict[str, Any]:
    """Everything that the JSON holds."""
    models = parts()
    bases: list[BaseDtype] = [base for base in get_args(BaseDtype) if base != "fp32"]
    return {
        "note": "calculated, not run at full size",
        "adapter": {"rank": 64, "targets": "attention", "parameters": TRAINABLE},
        "mfu": MFU,
        "cards": {card.name: {"gib": card.memory, "tflops": card.rate} for card in CARDS},
        "rows": [
            row(models, card, base, cached)
            for card in CARDS
            for base in (bases if card.memory < _BF16_FITS else bases[:1])
            for cached in (False, True)
        ],
        "run": {padding: run(padding) for padding in PADDINGS},
    }


def main() -> None:
    """Write the JSON and the tables of the docs, and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--docs", type=Path)
    arguments = parser.parse_args()
    results = calculated()
    arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    blocks = tables(results)
    print("\n\n".join(blocks.values()))
    if arguments.docs:
        page = arguments.docs.read_text(encoding="utf-8")
        arguments.docs.write_text(written(page, blocks), encoding="utf-8")


if __name__ == "__main__":
    main()
