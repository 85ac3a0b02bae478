"""The parts of gpu_day.sh: the memory plan, MFU, sampling and classifiers, on one GPU.

`python benchmarks/gpu_day.py part memory memory.json` measures one part, with `--tiny` on a CPU;
`python benchmarks/gpu_day.py table FOLDER` puts the parts in FOLDER together, as gpu_day.json and
as gpu_day.md for the docs. Weights are random and drawn on the device.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flux_memory
import flux_shape
import stand_in
import torch
from random_flux import Model
from torch import nn

from dermaflux.core.devices import device_name, free_memory
from dermaflux.core.files import write_json
from dermaflux.generators.flux_lora.model.flops import LoraShape
from dermaflux.generators.flux_lora.training import memory_plan
from dermaflux.generators.flux_lora.training.checkpointing import recompute
from dermaflux.generators.flux_lora.training.memory_plan import GIB, MemoryPlan
from dermaflux.generators.flux_lora.training.saved_activations import BatchShape
from dermaflux.training.peak_flops import measured_peak

BATCH_TOKENS = flux_memory.BATCH_TOKENS
LENGTHS = (144, 512)
"""T5 tokens: the bucket of the mean caption with `trim`, and `pad512`."""
SAMPLED = 16
"""Images sampled together."""


class Bench:
    """The device, and FLUX.1-dev's shape with random weights on it."""

    def __init__(self, tiny: bool) -> None:
        self.tiny = tiny
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        if self.device.type == "cpu" and not tiny:
            raise SystemExit("torch finds no GPU; rent one, or give --tiny to try the script")
        self.scales = [128] if tiny else list(stand_in.PAPER_MIX)
        self.budget = 1024 if tiny else BATCH_TOKENS

    def model(self) -> Model:
        """The parts, drawn on the device."""
        return Model(self.tiny, self.device, self.dtype)

    def planned_model(self) -> tuple[Model, MemoryPlan]:
        """The parts, and the plan of a training in the memory that was free before."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # of the matrices that measured the rate
        free = free_memory(self.device)
        model = self.model()
        return model, self._plan(model, free)

    def _plan(self, model: Model, free: int) -> MemoryPlan:
        shapes = tuple(
            BatchShape(max(1, self.budget // ((side // 16) ** 2 + text)), (side // 16) ** 2, text)
            for side in self.scales
            for text in LENGTHS
        )
        adapter = LoraShape(flux_shape.RANK, "attention")
        # Attention's four layers of double blocks, for image and text, and three of single ones.
        layers = 8 * model.shape.double_blocks + 3 * model.shape.single_blocks
        run = memory_plan.Training(
            "bf16" if self.dtype == torch.bfloat16 else "fp32", adapter,
            2 * adapter.rank * model.shape.width * layers, False, False, "auto", shapes,
        )  # fmt: skip
        parts = {
            "transformer": model.transformer, "text_encoder_2": model.encoder, "vae": model.vae,
            "text_encoder": nn.Identity(),
        }  # fmt: skip
        return memory_plan.fit(parts, model.shape, run, self.device.type, memory_plan.usable(free))


def memory(bench: Bench) -> list[dict[str, Any]]:
    """Planned and really allocated memory of a step of every shape, GiB; null on a CPU."""
    model, plan = bench.planned_model()
    training = flux_shape.Training(model)
    recompute(model.transformer, plan.recomputed)
    kept = sum(size for name, size in plan.parts.items() if name != "runtime")
    gpu = bench.device.type == "cuda"
    rows = []
    for shape, activations in plan.activations.items():
        model.peak_gib()
        row: dict[str, Any] = {
            "images": shape.images, "image_tokens": shape.image_tokens,
            "text_tokens": shape.text_tokens, "recomputed_blocks": plan.recomputed,
            "planned_gib": (kept + activations) / GIB,
        }  # fmt: skip
        try:
            for _ in range(2):  # the first step makes the optimiser's moments
                side = 16 * int(shape.image_tokens**0.5)
                training.step(side, shape.text_tokens, shape.images, encode_pictures=False)
            model.synchronise()
        except torch.OutOfMemoryError:
            rows.append({**row, "out_of_memory": True})
            continue
        reserved = torch.cuda.max_memory_reserved() / GIB if gpu else None
        row |= {"allocated_gib": model.peak_gib() if gpu else None, "reserved_gib": reserved}
        rows.append(row)
        print(json.dumps(rows[-1]), flush=True)
    return rows


def train(bench: Bench, compiled: bool) -> list[dict[str, Any]]:
    """Training by scale and text length, with as many blocks recomputed as the plan says."""
    model, plan = bench.planned_model()
    name = "compiled" if compiled else "not compiled"
    compared: list[flux_shape.Variant] = [(name, plan.recomputed, compiled, False, LENGTHS)]
    rows = flux_shape.train(model, bench.budget, bench.scales, compared)
    return [{**row, "recomputed_blocks": plan.recomputed} for row in rows]


def sample(bench: Bench) -> list[dict[str, Any]]:
    """Sampling in 20 steps with 128 text tokens, compiled and not."""
    return flux_shape.generate(
        bench.model(), bench.scales, [2 if bench.tiny else SAMPLED], alone=True
    )


def classifier(bench: Bench, architecture: str) -> list[dict[str, Any]]:
    """Training and scoring of one of the paper's classifiers at 224 pixels."""
    import figure4_hours

    with tempfile.TemporaryDirectory() as work:
        if bench.tiny:
            return figure4_hours.gpu_rates(Path(work), 64, 2, [architecture], 32, [False])
        return figure4_hours.gpu_rates(Path(work), 12_800, 3, [architecture])


PARTS: dict[str, Callable[[Bench], list[dict[str, Any]]]] = {
    "memory": memory,
    "train": lambda bench: train(bench, False),
    "train-compiled": lambda bench: train(bench, True),
    "sample": sample,
    "vit": lambda bench: classifier(bench, "vit"),
    "resnext": lambda bench: classifier(bench, "resnext"),
}
"""In order of value, as gpu_day.sh runs them."""


def measure(part: str, tiny: bool) -> dict[str, Any]:
    """One part, with the device and its rate of matrix products."""
    bench = Bench(tiny)
    peak = measured_peak(bench.device, bench.dtype)
    rows = PARTS[part](bench)
    return {
        "device": device_name(bench.device),
        "tiny": tiny,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "peak_tflops": peak / 1e12,
        "batch_tokens": bench.budget,
        "rows": [
            {**row, "mfu": row["tflops"] * 1e12 / peak} if "tflops" in row else row for row in rows
        ],
    }


def run_hours(rows: list[dict[str, Any]], length: int) -> float | None:
    """Hours of the paper's five epochs at the measured rates; None where a scale is missing."""
    rates = {
        row["scale"]: row.get("images_per_second") for row in rows if row["text_tokens"] == length
    }
    if any(rates.get(scale) is None for scale in stand_in.PAPER_MIX):
        return None
    seconds = sum(count / rates[scale] for scale, count in stand_in.PAPER_MIX.items())
    return flux_shape.EPOCHS * seconds / 3600


def table(parts: dict[str, dict[str, Any]]) -> str:
    """Markdown for the docs: a line for each measurement."""
    lines = ["| part | what | figure |", "|---|---|---|"]
    for part, content in parts.items():
        lines += [f"| {part} | {what} | {figure} |" for what, figure in _lines(part, content)]
    devices = sorted({f"{each['device']}, torch {each['torch']}" for each in parts.values()})
    if any(each["tiny"] for each in parts.values()):
        devices.append("TINY SHAPES: these figures mean nothing")
    return "\n".join([*lines, "", f"Measured by `benchmarks/gpu_day.sh` on {'; '.join(devices)}."])


def _lines(part: str, content: dict[str, Any]) -> list[tuple[str, str]]:
    rows = content["rows"]
    if part == "memory":
        return [(_shape(row), _memory(row)) for row in rows]
    if part.startswith("train"):
        lines = [
            (f"{row['scale']} pixels, {row['text_tokens']} text tokens", _rate(row)) for row in rows
        ]
        for length, padding in zip(LENGTHS, flux_memory.PADDINGS, strict=True):
            if (hours := run_hours(rows, length)) is not None:
                lines.append((f"the paper's run, `{padding}`", f"{hours:.1f} h"))
        return lines
    if part == "sample":
        return [
            (f"{row['variant']}, {row['scale']} pixels, batch {row['batch']}", _rate(row))
            for row in rows
        ]
    return [
        (
            "compiled" if row["compiled"] else "not compiled",
            f"trains {row['trained_images_per_second']:,.0f} images/s, scores "
            f"{row['scored_images_per_second']:,.0f} images/s",
        )
        for row in rows
    ]


def _shape(row: dict[str, Any]) -> str:
    return (
        f"{row['images']} x ({row['image_tokens']} + {row['text_tokens']}) tokens, "
        f"{row['recomputed_blocks']} blocks recomputed"
    )


def _memory(row: dict[str, Any]) -> str:
    planned = f"planned {row['planned_gib']:.1f} GiB"
    if row.get("out_of_memory"):
        return f"{planned}, out of memory"
    if row["allocated_gib"] is None:
        return f"{planned}, not measured on a CPU"
    return (
        f"{planned}, allocated {row['allocated_gib']:.1f}, reserved {row['reserved_gib']:.1f} GiB"
    )


def _rate(row: dict[str, Any]) -> str:
    if row.get("out_of_memory"):
        return "out of memory"
    return f"{row['images_per_second']:.2f} images/s, MFU {100 * row['mfu']:.0f} %"


def main() -> None:
    """Measure one part, or put all together."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("part")
    one.add_argument("part", choices=list(PARTS))
    one.add_argument("output", type=Path)
    one.add_argument("--tiny", action="store_true", help="small shapes, to try the script")
    commands.add_parser("table").add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "part":
        write_json(arguments.output, measure(arguments.part, arguments.tiny))
        return
    files = {part: arguments.folder / f"{part}.json" for part in PARTS}
    parts = {
        part: json.loads(file.read_text(encoding="utf-8"))
        for part, file in files.items()
        if file.is_file()
    }
    if not parts:
        raise SystemExit(f"{arguments.folder} holds no part; see its .log files")
    write_json(arguments.folder / "gpu_day.json", parts)
    markdown = table(parts)
    (arguments.folder / "gpu_day.md").write_text(markdown + "\n", encoding="utf-8")
    print(markdown)


if __name__ == "__main__":
    main()
