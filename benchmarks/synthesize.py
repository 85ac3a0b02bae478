"""Sampling against `FluxPipeline.__call__` on the same machine, weights, prompts, seeds and steps.

A FluxPipeline of the demo's size with random weights and a random adapter; captions have the
lengths of the published ones. Ours: adapter merged, batches of one text length, `trim` and
`pad512`. diffusers: the adapter loaded as it is, prompts padded to its default of 512 tokens, batch
1 and batch 16; and at batch 16 with the adapter fused, which a careful user does. Loading is not
timed. Writes JSON:
`python benchmarks/synthesize.py --output benchmarks/results/synthesize.json`.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import stand_in
import torch

from dermaflux.core.files import write_json
from dermaflux.generators.flux_lora.model import lora, pipeline, prompt_padding
from dermaflux.generators.flux_lora.model.options import PromptPadding
from dermaflux.generators.flux_lora.sampling import load as merged
from dermaflux.generators.flux_lora.sampling.sample import SamplingSettings, sample
from dermaflux.generators.pool import plan
from dermaflux.generators.protocol import Condition

BATCH = 16
SCALE = 128


def prepare(folder: Path) -> tuple[Path, Path]:
    """A backbone of the tiny shape, and a generator of rank 16 with random weights."""
    backbone, generator = folder / "backbone", folder / "generator"
    stand_in.write_backbone(backbone)
    pipe = pipeline.load(backbone, "fp32")
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in lora.add(pipe.transformer, "attention", 16, 16, seed=0).values():
            weight.copy_(0.02 * torch.randn(weight.shape, generator=draw))
    lora.save(pipe.transformer, generator, {})
    return backbone, generator


def speed(work: Callable[[Sequence[int]], object], batches: Sequence[Sequence[int]]) -> float:
    """Images per second over all batches, after one that is not timed."""
    work(batches[0])
    began = time.perf_counter()
    for batch in batches:
        work(batch)
    return sum(map(len, batches)) / (time.perf_counter() - began)


def ours(pipe: Any, prompts: list[str], steps: int, padding: PromptPadding) -> dict[str, Any]:
    """Images per second of batches of one text length."""
    settings = SamplingSettings(steps, 3.5, padding)
    lengths = prompt_padding.text_lengths(pipe, prompts, padding)
    (shard,) = plan.shards([(length,) for length in lengths], len(prompts), BATCH)

    def work(batch: Sequence[int]) -> object:
        conditions = [Condition("benign", prompts[index], SCALE, index) for index in batch]
        return sample(pipe, settings, conditions)

    rate = speed(work, [batch.members for batch in shard.batches])
    return {
        "name": f"ours, {padding}, adapter merged, batch {BATCH}",
        "text_tokens_mean": round(sum(lengths) / len(lengths), 1),
        "images_per_second": round(rate, 3),
    }


def theirs(pipe: Any, prompts: list[str], steps: int, batch: int, how: str) -> dict[str, Any]:
    """Images per second of the pipeline itself at its defaults."""

    def work(members: Sequence[int]) -> object:
        return pipe(
            prompt=[prompts[place] for place in members],
            height=SCALE,
            width=SCALE,
            num_inference_steps=steps,
            guidance_scale=3.5,
            generator=[torch.Generator().manual_seed(place) for place in members],
            output_type="np",
        )

    order = range(len(prompts))
    batches = [order[start : start + batch] for start in range(0, len(prompts), batch)]
    return {
        "name": f"FluxPipeline, adapter {how}, batch {batch}",
        "text_tokens_mean": 512.0,
        "images_per_second": round(speed(work, batches), 3),
    }


def main() -> None:
    """Measure all, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    output = arguments.output and arguments.output.absolute()
    load = os.getloadavg()[0]
    prompts = stand_in.captions(arguments.images)
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        backbone, generator = prepare(Path(folder))
        pipe = merged.open_generator(generator, backbone, "fp32")
        rows = [ours(pipe, prompts, arguments.steps, policy) for policy in ("trim", "pad512")]
        plain = pipeline.load(backbone, "fp32")
        plain.load_lora_weights(str(generator))
        rows += [theirs(plain, prompts, arguments.steps, size, "loaded") for size in (1, BATCH)]
        plain.fuse_lora()
        plain.unload_lora_weights()
        rows.append(theirs(plain, prompts, arguments.steps, BATCH, "fused"))
        os.chdir(home)
    print(f"{'':52} {'text tokens':>11} {'images/s':>9} {'ours / it':>9}")
    for row in rows:
        ratio = rows[0]["images_per_second"] / row["images_per_second"]
        row["trimmed_times_as_fast"] = round(ratio, 2)
        print(
            f"{row['name']:52} {row['text_tokens_mean']:>11} {row['images_per_second']:>9} "
            f"{ratio:>8.2f}x"
        )
    report = {
        "runs": rows,
        "images": arguments.images,
        "steps": arguments.steps,
        "scale_pixels": SCALE,
        "precision": "fp32",
        "device": str(pipeline.automatic_device()),
        "cpus": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load_average_at_start": round(load, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if output:
        write_json(output, report)


if __name__ == "__main__":
    main()
