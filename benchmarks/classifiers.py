"""Training classifiers against timm's own `train.py`, on this CPU.

Both train the same timm models on the same JPEG files with the same batch, size, epochs, AdamW and
cosine, and mirror images; both validate after every epoch. Ours is the stage `train` itself, with
its checks and its MLflow run, cold (it decodes) and warm (another cell did). The script is timm's
`train.py`, kept outside the project; timm gets fused AdamW, `channels_last` and persistent workers:

    python benchmarks/classifiers.py --script PATH --output benchmarks/results/classifiers.json

`end to end` is from the start of the process to its end; `steady` is epochs 2 to last. `vit` and
`resnext` are the demo's classifiers.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dermaflux.core import table
from dermaflux.core.files import write_json
from dermaflux.core.hashing import sha256
from dermaflux.params import load

ROOT = Path(__file__).parents[1]
LEARNING_RATE, DECAY = 1e-3, 0.05
SHIPPED = load.load(ROOT / "params.yaml")
MODELS: dict[str, tuple[str, dict[str, Any], int]] = {
    "resnet18": ("resnet18", {}, 64),
    **{
        name: (SHIPPED.train.models[name].name, SHIPPED.train.models[name].options, 64)
        for name in ("vit", "resnext")
    },
}
"""Name -> timm model, options, pixels of a side."""
_VALIDATION = 256
_DISTINCT = 200  # rendered lesions; the others differ from them in noise


def pictures(count: int, side: int) -> Iterator[bytes]:
    """JPEG files of rendered lesions with noise of a camera's size."""
    from PIL import Image

    from dermaflux.phantom import draw, render

    rendered = [render(draw(i, "benchmark"), side, side) for i in range(min(count, _DISTINCT))]
    noise = np.random.default_rng(0)
    for index in range(count):
        grain = noise.normal(0, 3, (side, side, 1))
        pixels = (rendered[index % len(rendered)] + grain).clip(0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=95)
        yield file.getvalue()


def stage(folder: Path, images: int, side: int) -> None:
    """The same files as our corpus and as timm's image folder."""
    (folder / ".dvc").mkdir(parents=True)
    sizes = {"train": images, "validation": _VALIDATION, "test": 2}
    source = pictures(sum(sizes.values()), side)
    rows = []
    for split, count in sizes.items():
        for index, encoded in zip(range(count), source, strict=False):
            label = ("benign", "malignant")[index % 2]
            place = folder / "imagefolder" / split / label
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{index:06d}.jpg").write_bytes(encoded)
            rows.append(
                {
                    "image": {"bytes": encoded, "path": None},
                    "image_id": f"benchmark/{split}-{index:06d}",
                    "source": "benchmark",
                    "label": label,
                    "split": split,
                    "sha256": sha256(encoded),
                }
            )
    table.write(rows, folder / "corpus", 64)


def stamped() -> list[float]:
    """Let every AdamW leave the time after each step in the list that is returned."""
    import torch

    stamps: list[float] = []
    plain = torch.optim.AdamW.step

    def step(self: Any, *arguments: Any, **named: Any) -> Any:
        result = plain(self, *arguments, **named)
        stamps.append(time.perf_counter())
        return result

    torch.optim.AdamW.step = step  # type: ignore[method-assign]
    return stamps


def report(stamps: list[float], arguments: argparse.Namespace) -> None:
    """Print what this process measured: images/s from the end of epoch 1 to the last step."""
    per_epoch = arguments.images // arguments.batch
    if len(stamps) != per_epoch * arguments.epochs:
        raise SystemExit(f"{len(stamps)} steps instead of {per_epoch * arguments.epochs}")
    images = arguments.batch * (len(stamps) - per_epoch)
    print(f"MEASURED {images / (stamps[-1] - stamps[per_epoch - 1])}", flush=True)


def run_timm(arguments: argparse.Namespace) -> None:
    """Worker: timm's script itself."""
    name, options, side = MODELS[arguments.model]
    chosen = {
        "data-dir": arguments.folder / "imagefolder",
        "model": name,
        "num-classes": 2,
        "batch-size": arguments.batch,
        "epochs": arguments.epochs,
        "workers": arguments.workers,
        "device": "cpu",
        "opt": "adamw",
        "opt-kwargs": "fused=True",
        "lr": LEARNING_RATE,
        "weight-decay": DECAY,
        "warmup-epochs": 0,
        "smoothing": 0,
        "crop-pct": 1,
        "hflip": 0.5,
        "vflip": 0.5,
        "color-jitter": 0,
        "checkpoint-hist": 1,
        "log-interval": 10_000,
        "output": arguments.folder / "timm",
    }
    sys.argv = [str(arguments.script), "--channels-last", "--input-size", "3", str(side), str(side)]
    sys.argv += ["--scale", "1", "1", "--ratio", "1", "1"]
    for option, value in chosen.items():
        sys.argv += [f"--{option}", str(value)]
    if options:
        sys.argv += [
            "--model-kwargs",
            *(f"{key}={value}".replace(" ", "") for key, value in options.items()),
        ]
    if arguments.precision == "bf16":
        sys.argv += ["--amp", "--amp-dtype", "bfloat16"]
    stamps = stamped()
    runpy.run_path(str(arguments.script), run_name="__main__")
    report(stamps, arguments)


def run_ours(arguments: argparse.Namespace) -> None:
    """Worker: the stage `train` itself."""
    from dermaflux.classifiers import train
    from dermaflux.validation import mixture_gate

    name, options, side = MODELS[arguments.model]
    shipped = SHIPPED.model_dump(by_alias=True)
    section = {
        **shipped["train"],
        "architectures": ["net"],
        "seeds": [arguments.seed],
        "arms": ["real"],
        "models": {"net": {"name": name, "learning_rate": LEARNING_RATE, "options": options}},
        "image_size": side,
        "epochs": arguments.epochs,
        "batch": arguments.batch,
        "weight_decay": DECAY,
        "warmup_epochs": 0,
        "augmentation": "flips",
        "precision": arguments.precision,
    }
    own = {"train": section, "promote": {**shipped["promote"], "architecture": "net"}}
    params = load.parse({**shipped, "n_real": arguments.images, "ratio": 0, **own})
    os.chdir(arguments.folder)
    stamps = stamped()
    train.run(params, "net", arguments.seed, mixture_gate.check)
    report(stamps, arguments)


def worker(which: str, arguments: argparse.Namespace, **options: Any) -> dict[str, float]:
    """Run one of the two in a process of its own: images/s end to end and steady."""
    command = [sys.executable, __file__, "--worker", which]
    shared = {name: getattr(arguments, name) for name in ("images", "batch", "epochs", "precision")}
    for name, value in {**shared, **options}.items():
        command += [f"--{name}", str(value)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    environment.pop("DVC_ROOT", None)
    environment.pop("MLFLOW_TRACKING_URI", None)
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    seconds = time.perf_counter() - began
    for line in done.stdout.splitlines():
        if line.startswith("MEASURED ") and done.returncode == 0:
            return {
                "end_to_end_images_per_second": arguments.images * arguments.epochs / seconds,
                "steady_images_per_second": float(line.removeprefix("MEASURED ")),
                "seconds": seconds,
            }
    raise SystemExit(f"{which} gave no figure:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def compare(arguments: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Every variant of every model, in turns `--repeats` times; the best of each counts."""
    rows = []
    for model in arguments.models:
        folder = work / model
        stage(folder, arguments.images, arguments.side)
        best: dict[str, dict[str, float]] = {}
        for turn in range(arguments.repeats):
            runs: dict[str, tuple[str, dict[str, Any]]] = {
                f"timm, {count} workers": ("timm", {"script": arguments.script, "workers": count})
                for count in arguments.timm_workers
            }
            cache = folder / ".dermaflux" / "cache"
            runs["ours, cold"] = ("ours", {"seed": 2 * turn})
            runs["ours, warm"] = ("ours", {"seed": 2 * turn + 1})
            for name, (which, options) in runs.items():
                if name == "ours, cold" and cache.exists():
                    cache.rename(folder / f"cache-{turn}")
                found = worker(which, arguments, model=model, folder=folder, **options)
                if name not in best or found["seconds"] < best[name]["seconds"]:
                    best[name] = found
        fastest = min(found["seconds"] for name, found in best.items() if "timm" in name)
        for name, found in best.items():
            row = {"model": model, "side": MODELS[model][2], "variant": name, **found}
            rows.append({**row, "times_timm": fastest / found["seconds"]})
            print(
                f"{model:10s} {row['side']:4d} px  {name:16s} {found['seconds']:7.1f} s  "
                f"{found['end_to_end_images_per_second']:8.1f} images/s end to end  "
                f"{found['steady_images_per_second']:8.1f} steady  "
                f"{rows[-1]['times_timm']:5.2f} x timm's best",
                flush=True,
            )
    return rows


def main() -> None:
    """Print the tables and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--script", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--side", type=int, default=256, help="pixels of the JPEG files")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--timm-workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--worker", choices=["ours", "timm"])
    parser.add_argument("--model")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--seed", type=int)
    arguments = parser.parse_args()
    if arguments.worker:
        {"ours": run_ours, "timm": run_timm}[arguments.worker](arguments)
        return
    content: dict[str, Any] = {
        "device": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load_average": os.getloadavg()[0],
    }
    with tempfile.TemporaryDirectory() as temporary:
        names = ("images", "side", "batch", "epochs", "precision", "repeats")
        content |= {name: getattr(arguments, name) for name in names}
        content["compare"] = compare(arguments, Path(temporary))
    if arguments.output:
        write_json(arguments.output, content)


if __name__ == "__main__":
    main()
