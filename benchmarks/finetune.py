"""LoRA training against diffusers' example script, and how it grows with the corpus, on this CPU.

Both train the same adapter on the same images and captions in fp32 with the same threads; the time
of a step is read off the same clock, a stamp after each `AdamW.step`. The script is diffusers'
`examples/dreambooth/train_dreambooth_lora_flux.py`, kept outside the project:

    python benchmarks/finetune.py --script PATH --output benchmarks/results/finetune.json

The base is a FluxPipeline folder of random weights (`--heads 4` is the demo's size); captions have
the lengths of the published ones.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import stand_in

from dermaflux.core import table

ROOT = Path(__file__).parents[1]
RANK = 16
_WARM = 3
_ATTENTION = (
    "attn.to_k,attn.to_q,attn.to_v,attn.to_out.0,"
    "attn.add_k_proj,attn.add_q_proj,attn.add_v_proj,attn.to_add_out"
)
_LARGEST_TOKENS = 512 + 1024


def stamped(steps: int, done: Any) -> None:
    """Let every AdamW leave the time after each step, and call `done(stamps)` after `steps`."""
    import torch

    stamps: list[float] = []
    plain = torch.optim.AdamW.step

    def step(self: Any, *arguments: Any, **named: Any) -> Any:
        result = plain(self, *arguments, **named)
        stamps.append(time.perf_counter())
        if len(stamps) == steps:
            done(stamps)
        return result

    torch.optim.AdamW.step = step


def report(**facts: Any) -> None:
    """Print what this process measured, and end it: what follows the steps is not timed."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print("MEASURED " + json.dumps({**facts, "peak_mib": round(peak)}), flush=True)
    os._exit(0)


def run_diffusers(arguments: argparse.Namespace) -> None:
    """Worker: the example script itself."""

    def done(stamps: list[float]) -> None:
        seconds = stamps[-1] - stamps[_WARM - 1]
        batches = len(stamps) - _WARM
        report(
            images_per_second=arguments.batch * batches / seconds,
            seconds_per_step=seconds / batches,
            images_per_step=arguments.batch,
        )

    stamped(arguments.steps + _WARM, done)
    folder = arguments.folder
    options = {
        "pretrained_model_name_or_path": folder / "backbone",
        "dataset_name": folder / "imagefolder",
        "image_column": "image",
        "caption_column": "text",
        "instance_prompt": "a lesion",
        "resolution": arguments.scale,
        "train_batch_size": arguments.batch,
        "rank": RANK,
        "lora_alpha": RANK,
        "lora_layers": _ATTENTION,
        "max_train_steps": 10_000,
        "mixed_precision": "no",
        "max_sequence_length": 512,
        "weighting_scheme": "logit_normal",
        "output_dir": folder / "diffusers",
    }
    sys.argv = [str(arguments.script)]
    for name, value in options.items():
        sys.argv += [f"--{name}", str(value)]
    sys.argv += ["--cache_latents"] * arguments.cached
    runpy.run_path(str(arguments.script), run_name="__main__")


def run_ours(arguments: argparse.Namespace) -> None:
    """Worker: the stage `finetune` itself."""
    from dermaflux.core.distributed import join
    from dermaflux.generators import finetune
    from dermaflux.generators.data import images
    from dermaflux.generators.flux_lora import settings
    from dermaflux.generators.flux_lora.model.pipeline import tokenizers
    from dermaflux.generators.flux_lora.training.data import arrange
    from dermaflux.generators.protocol import TrainingRun
    from dermaflux.params import Finetune
    from dermaflux.params.runtime import FinetuneRuntime
    from dermaflux.tracking.runs import Silent

    folder = arguments.folder
    lora = settings.Finetune(
        targets="attention",
        rank=RANK,
        alpha=RANK,
        steps=arguments.steps + _WARM + 1,
        batch_tokens=arguments.batch_tokens,
        prompt_padding=arguments.policy,
    )
    section = Finetune.model_validate(
        {"scales": [arguments.scale], "validation_images": 0, "flux_lora": lora}
    )
    runtime = FinetuneRuntime(
        gradient_checkpointing="none",
        checkpoint_steps=100_000,
        log_steps=100_000,
        grid_steps=100_000,
    )
    os.chdir(folder)
    inputs = (folder / "corpus", folder / "captions", folder / "backbone")
    began = time.perf_counter()
    chosen = images.read(section, 0, *inputs[:2])
    order = arrange(lora, 0, chosen, tokenizers(inputs[2])).order
    planned = time.perf_counter() - began

    def done(stamps: list[float]) -> None:
        seconds = stamps[-1] - stamps[_WARM - 1]
        timed = range(_WARM, len(stamps))
        images = sum(micro.real for step in timed for micro in order.at(step))
        report(
            images_per_second=images / seconds,
            seconds_per_step=seconds / len(timed),
            images_per_step=images / len(timed),
            plan_seconds=planned,
            first_step_seconds=stamps[0] - began,
        )

    stamped(arguments.steps + _WARM, done)
    run = TrainingRun(section, lora, runtime, 0, *inputs, folder / "grid.png", Silent(), join())
    finetune.finetune("flux_lora", run, folder / "generator")


def worker(which: str, folder: Path, **options: Any) -> dict[str, float]:
    """Run one of the two in a process of its own; the last line it prints is the result."""
    command = [sys.executable, __file__, "--worker", which, "--folder", str(folder)]
    for name, value in options.items():
        if value is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{Path(__file__).parent}"}
    environment.pop("DVC_ROOT", None)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("MEASURED "):
            measured: dict[str, float] = json.loads(line.removeprefix("MEASURED "))
            return measured
    raise SystemExit(
        f"{which} {options} gave no figure:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    )


def stage(folder: Path, scale: int, images: int) -> None:
    """Corpus and captions for our stage, and the same files as diffusers' image folder."""
    (folder / ".dvc").mkdir(parents=True)
    corpus, captions = stand_in.write_corpus(folder, [scale] * images)
    texts = table.metadata(captions, ["image_id", "caption"]).set_index("image_id")["caption"]
    (folder / "imagefolder").mkdir()
    with (folder / "imagefolder" / "metadata.jsonl").open("w") as listing:
        for image_id, encoded in table.images(corpus):
            name = image_id.split("/")[1] + ".jpg"
            (folder / "imagefolder" / name).write_bytes(encoded)
            listing.write(json.dumps({"file_name": name, "text": texts[image_id]}) + "\n")


def compare(arguments: argparse.Namespace, backbone: Path, work: Path) -> list[dict[str, Any]]:
    """images/s of every variant at every scale, at equal images a step (trimmed: nearly)."""
    rows = []
    mean_trimmed = sum(16 * -(-n // 16) for n in stand_in.caption_lengths(1000)) / 1000
    for scale, batch in arguments.batches.items():
        folder = work / str(scale)
        stage(folder, scale, arguments.images)
        (folder / "backbone").symlink_to(backbone)
        image_tokens = (scale // 16) ** 2
        runs = {
            "diffusers": ("diffusers", {"script": arguments.script, "batch": batch}),
            "diffusers, latents cached": (
                "diffusers",
                {"script": arguments.script, "batch": batch, "cached": 1},
            ),
            "ours, pad512": (
                "ours",
                {"policy": "pad512", "batch_tokens": batch * (image_tokens + 512)},
            ),
            "ours, trim": (
                "ours",
                {"policy": "trim", "batch_tokens": round(batch * (image_tokens + mean_trimmed))},
            ),
            "ours, trim, large batch": (
                "ours",
                {"policy": "trim", "batch_tokens": 4 * batch * _LARGEST_TOKENS},
            ),
        }
        for name, (which, options) in runs.items():
            found = worker(which, folder, scale=scale, steps=arguments.steps, **options)
            rows.append({"variant": name, "scale": scale, **found})
            print(
                f"{scale:4d} px  {name:28s} {found['images_per_second']:8.2f} images/s  "
                f"{found['images_per_step']:5.1f} images a step  {found['peak_mib']:6.0f} MiB",
                flush=True,
            )
    return rows


def on_the_mix(rows: list[dict[str, Any]]) -> dict[str, float]:
    """images/s on the published mix of scales: images over the sum of their times."""
    mixed = {}
    for name in dict.fromkeys(row["variant"] for row in rows):
        speeds = {row["scale"]: row["images_per_second"] for row in rows if row["variant"] == name}
        if set(speeds) == set(stand_in.PAPER_MIX):
            seconds = sum(n / speeds[scale] for scale, n in stand_in.PAPER_MIX.items())
            mixed[name] = sum(stand_in.PAPER_MIX.values()) / seconds
    return mixed


def growth(arguments: argparse.Namespace, backbone: Path, work: Path) -> list[dict[str, Any]]:
    """Time to plan, time to the first step, time of a step and memory, by images of 128 pixels."""
    rows = []
    for images in arguments.growth:
        folder = work / f"growth-{images}"
        stand_in.write_corpus(folder, [128] * images)
        (folder / ".dvc").mkdir()
        (folder / "backbone").symlink_to(backbone)
        options = {"policy": "trim", "batch_tokens": 2048, "scale": 128, "steps": arguments.steps}
        for cache in ("cold", "warm"):
            found = worker("ours", folder, **options)
            rows.append({"images": images, "latents": cache, **found})
            print(
                f"{images:8,d} images, latents {cache}: plan {found['plan_seconds']:6.1f} s, first "
                f"step after {found['first_step_seconds']:7.1f} s, then "
                f"{found['images_per_second']:6.1f} images/s, peak {found['peak_mib']:6.0f} MiB",
                flush=True,
            )
    return rows


def main() -> None:
    """Print the tables and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--script", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--batches", type=json.loads, default={"128": 8, "256": 8, "512": 4})
    parser.add_argument("--growth", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--worker", choices=["ours", "diffusers"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--scale", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--cached", type=int, default=0)
    parser.add_argument("--policy")
    parser.add_argument("--batch-tokens", type=int)
    arguments = parser.parse_args()
    if arguments.worker:
        {"ours": run_ours, "diffusers": run_diffusers}[arguments.worker](arguments)
    arguments.batches = {int(scale): batch for scale, batch in arguments.batches.items()}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        stand_in.write_backbone(work / "backbone", heads=arguments.heads)
        rows = compare(arguments, work / "backbone", work) if arguments.script else []
        mixed = on_the_mix(rows)
        for name, speed in mixed.items():
            ratio = speed / mixed["diffusers"]
            print(f"published mix  {name:28s} {speed:8.2f} images/s  {ratio:5.2f} x diffusers")
        grown = growth(arguments, work / "backbone", work)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "device": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            "load_average": os.getloadavg()[0],
            "heads": arguments.heads,
            "compare": rows,
            "published_mix_images_per_second": mixed,
            "growth": grown,
        }
        arguments.output.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
