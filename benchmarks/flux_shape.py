"""FLUX.1-dev's shape with random weights: training and sampling speed, MFU and memory of a GPU.

Needs no download: weights are drawn on the device. Every figure stands beside what diffusers does
on the same device: its example's step (512 padded text tokens, pictures and captions encoded anew
in each step, attention from the model as it comes) and `FluxPipeline.__call__`. One H200 needs
about ten minutes for each part:

    python benchmarks/flux_shape.py --part train --output flux_shape_train.json
    python benchmarks/flux_shape.py --part sample --output flux_shape_sample.json

`--shape tiny` tries the script itself on a CPU; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import stand_in
import torch
from random_flux import Model

from dermaflux.core.torch_compile import compile_blocks
from dermaflux.generators.flux_lora.model import lora
from dermaflux.generators.flux_lora.model.flops import LoraShape, forward, training_step
from dermaflux.generators.flux_lora.model.loss import flow_matching_loss, noise_and_sigma
from dermaflux.generators.flux_lora.model.prompt_padding import Text
from dermaflux.generators.flux_lora.sampling.sample import SamplingSettings, sample
from dermaflux.generators.flux_lora.training.checkpointing import recompute
from dermaflux.generators.protocol import Condition
from dermaflux.training.peak_flops import measured_peak

EPOCHS, RANK, STEPS = 5, 64, 20
_SHORT, _LONG = 96, 208  # text tokens between which the time of a step is interpolated


class Training:
    """One micro-batch of `batch` images and an optimiser step."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.weights = lora.add(model.transformer, "attention", RANK, RANK, 0)
        self._optimiser = torch.optim.AdamW(
            self.weights.values(), lr=1e-4, fused=model.device.type == "cuda"
        )
        model.transformer.train()

    def step(self, scale: int, length: int, batch: int, encode_pictures: bool) -> None:
        """Ours draws from cached posteriors; with `encode_pictures` the autoencoder runs."""
        model, side = self._model, scale // 8
        draws = [torch.Generator().manual_seed(seed) for seed in range(batch)]
        latents = torch.randn(batch, 16, side, side)
        noise, sigma = noise_and_sigma(latents, "logit-normal", draws)
        latents = latents.to(model.device)
        if encode_pictures:
            pictures = torch.zeros(batch, 3, scale, scale, device=model.device, dtype=model.dtype)
            with torch.no_grad():
                latents = latents + 0 * model.vae.encode(pictures).latent_dist.sample().float()
        text = model.text(batch, length)
        loss = flow_matching_loss(model.transformer, latents, noise, sigma, text, 1.0).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights.values(), 1.0)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)


Variant = tuple[str, int, bool, bool, tuple[int, ...]]
"""Name, recomputed blocks, compiled, encodes pictures, text lengths."""


def variants(blocks: int) -> list[Variant]:
    """All that the part `train` compares, for a transformer of so many blocks."""
    return [
        ("diffusers' step", 0, False, True, (512,)),
        ("diffusers' step, checkpointed", blocks, False, True, (512,)),
        ("ours", 0, False, False, (_SHORT, _LONG, 512)),
        ("ours, checkpointed", blocks, False, False, (_SHORT, _LONG, 512)),
        ("ours, compiled", 0, True, False, (_SHORT, _LONG, 512)),
    ]


def train(
    model: Model, budget: int, scales: Sequence[int], compared: Sequence[Variant]
) -> list[dict[str, Any]]:
    """images/s, TFLOP/s and memory of each variant, scale and text length."""
    training = Training(model)
    rows = []
    for name, blocks, compiled, pictures, lengths in compared:
        recompute(model.transformer, blocks)
        if compiled:
            compile_blocks(model.transformer, len(scales) * len(lengths))
        for scale in scales:
            for length in lengths:
                tokens = (scale // 16) ** 2
                batch = max(1, budget // (tokens + length))
                row: dict[str, Any] = {"variant": name, "scale": scale, "text_tokens": length}
                try:
                    model.peak_gib()
                    seconds = model.seconds(
                        lambda s=scale, n=length, b=batch, p=pictures: training.step(s, n, b, p)
                    )
                except torch.OutOfMemoryError:
                    print(f"{name:32s} {scale:4d} px {length:4d} tokens: out of memory", flush=True)
                    rows.append({**row, "batch": batch, "out_of_memory": True})
                    continue
                flop = training_step(model.shape, tokens, length, LoraShape(RANK, "attention"))
                row |= {
                    "batch": batch,
                    "images_per_second": batch / seconds,
                    "tflops": batch * flop / seconds / 1e12,
                    "peak_gib": model.peak_gib(),
                }
                rows.append(row)
                print(
                    f"{name:32s} {scale:4d} px {length:4d} text tokens, batch {batch:3d}: "
                    f"{row['images_per_second']:8.2f} images/s {row['tflops']:7.1f} TFLOP/s "
                    f"{row['peak_gib']:6.1f} GiB",
                    flush=True,
                )
    return rows


def hours(rows: list[dict[str, Any]], variant: str, trimmed: bool) -> float | None:
    """Projected time of the published run, 5 epochs of the published mix; None without figures."""
    speeds = {
        (row["scale"], row["text_tokens"]): row.get("images_per_second")
        for row in rows
        if row["variant"] == variant
    }
    total = 0.0
    for scale, images in stand_in.PAPER_MIX.items():
        if not trimmed:
            speed = speeds.get((scale, 512))
            if speed is None:
                return None
            total += images / speed
            continue
        short, long = speeds.get((scale, _SHORT)), speeds.get((scale, _LONG))
        if short is None or long is None:
            return None
        lengths = np.array([16 * -(-n // 16) for n in stand_in.caption_lengths(10_000)])
        share = (lengths - _SHORT) / (_LONG - _SHORT)
        total += images * float(((1 - share) / short + share / long).mean())
    return EPOCHS * total / 3600


def generate(
    model: Model, scales: Sequence[int], batches: Sequence[int], alone: bool = False
) -> list[dict[str, Any]]:
    """Sampling: ours with the mean caption length, compiled and not; the pipeline's own call.

    With `alone` the pipeline's own is left out.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    from dermaflux.generators.tiny_flux.training import vocabulary_text
    from dermaflux.generators.tiny_flux.vocabulary import t5_tokenizer

    words = t5_tokenizer(vocabulary_text())
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0)
    pipe = FluxPipeline(scheduler, model.vae, None, None, None, words, model.transformer)
    pipe.set_progress_bar_config(disable=True)
    prompt = " ".join(["lesion"] * 122)  # with the end token 123: the published median
    rows = []

    def encode(prompts: Sequence[str], length: int) -> Text:
        return model.text(len(prompts), length)

    def theirs(scale: int, batch: int) -> None:
        text = model.text(batch, 512)
        with torch.inference_mode():
            pipe(
                prompt_embeds=text.tokens, pooled_prompt_embeds=text.pooled, height=scale,
                width=scale, num_inference_steps=STEPS, guidance_scale=3.5, output_type="np",
            )  # fmt: skip

    def ours(scale: int, batch: int) -> None:
        conditions = [Condition("benign", prompt, scale, seed) for seed in range(batch)]
        sample(pipe, SamplingSettings(STEPS, 3.5, "trim"), conditions, encode)

    def measure(name: str, call: Callable[[int, int], None], length: int) -> None:
        for scale in scales:
            for batch in batches:
                seconds = model.seconds(lambda s=scale, b=batch: call(s, b), warm=1)
                flop = STEPS * forward(model.shape, (scale // 16) ** 2, length)
                row = {
                    "variant": name, "scale": scale, "batch": batch,
                    "images_per_second": batch / seconds, "tflops": batch * flop / seconds / 1e12,
                }  # fmt: skip
                rows.append(row)
                print(
                    f"{name:24s} {scale:4d} px, batch {batch:3d}: "
                    f"{row['images_per_second']:7.2f} images/s {row['tflops']:7.1f} TFLOP/s",
                    flush=True,
                )

    if not alone:
        measure("FluxPipeline, 512 tokens", theirs, 512)
    measure("ours, 128 tokens", ours, 128)
    compile_blocks(model.transformer, len(scales) * len(batches))
    measure("ours, compiled", ours, 128)
    return rows


def main() -> None:
    """Print the table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["train", "sample"], required=True)
    parser.add_argument("--shape", choices=["flux", "tiny"], default="flux")
    parser.add_argument("--batch-tokens", type=int, default=12288)
    parser.add_argument("--scales", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    peak = measured_peak(device, dtype)
    print(f"{name}: {peak / 1e12:.1f} TFLOP/s in {dtype} matrix products", flush=True)
    model = Model(arguments.shape == "tiny", device, dtype)
    content: dict[str, Any] = {
        "device": name,
        "shape": arguments.shape,
        "torch": torch.__version__,
        "peak_tflops": peak / 1e12,
    }
    if arguments.part == "train":
        compared = variants(model.shape.blocks)
        rows = train(model, arguments.batch_tokens, arguments.scales, compared)
        projected = {
            "diffusers' step": hours(rows, "diffusers' step", trimmed=False),
            "ours, pad512": hours(rows, "ours, compiled", trimmed=False),
            "ours, trim": hours(rows, "ours, compiled", trimmed=True),
            "ours, trim, checkpointed": hours(rows, "ours, checkpointed", trimmed=True),
        }
        content["published_run_hours"] = projected
        for variant, time_needed in projected.items():
            if time_needed is not None:
                print(f"published run, 5 epochs: {variant:28s} {time_needed:7.1f} h")
    else:
        rows = generate(model, arguments.scales, arguments.batches)
    content["rows"] = [
        {**row, **({"mfu": row["tflops"] * 1e12 / peak} if "tflops" in row else {})} for row in rows
    ]
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
