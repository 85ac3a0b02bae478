"""Hours of the Figure 4 grid on this GPU: both architectures, five seeds, one after another.

Times training and scoring of the paper's classifiers at 224 px with random weights and pixels, and
multiplies with the images of the grid, shared arms counted once. Needs no hub, DVC or MLflow:

    python benchmarks/figure4_hours.py --output benchmarks/results/figure4_hours.json
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaflux.core.files import write_json
from dermaflux.params import load

if TYPE_CHECKING:
    from dermaflux.classifiers.data.samples import Samples

ROOT = Path(__file__).parents[1]


class _Clock:
    """A `Log` that notes when each epoch ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def metrics(self, values: Any, step: int) -> None:
        self.ends.append(time.perf_counter())

    def artifact(self, path: Path, folder: str = "") -> None:
        """Nothing to keep."""


def _noise(noise: np.random.Generator, count: int, side: int) -> Samples:
    """Images of noise, half of each class."""
    from dermaflux.classifiers.data.samples import Samples

    pixels = noise.integers(0, 256, (count, side, side, 3), np.uint8)
    labels = (np.arange(count) % 2).astype(np.uint8)
    return Samples([str(number) for number in range(count)], labels, pixels)


def gpu_rates(
    work: Path,
    images: int,
    epochs: int,
    architectures: Sequence[str] = (),
    side: int | None = None,
    variants: Sequence[bool] = (False, True),
) -> list[dict[str, Any]]:
    """images/s that `fit` trains and `probabilities` scores, of the paper's models or some of them.

    `side` is that of the pixels, the paper's when None; `variants` says compiled or not. The first
    epoch, in which the compiler runs, stands beside the rate. `work` is a folder for checkpoints.
    """
    from dermaflux.classifiers.data import arm_plan
    from dermaflux.classifiers.model import network as supervised
    from dermaflux.classifiers.recipes import registry
    from dermaflux.classifiers.train import loop
    from dermaflux.core.checkpoints import Checkpoint
    from dermaflux.core.devices import automatic_device

    paper = load.load(ROOT / "profiles" / "paper.yaml").train
    side, noise = side or paper.image_size, np.random.default_rng(0)
    paper = paper.model_copy(update={"image_size": side})
    training, validation = (_noise(noise, count, side) for count in (images, 64))
    rows = []
    for architecture in architectures or paper.architectures:
        model = paper.models[architecture].model_copy(update={"pretrained": False, "weights": None})
        config = supervised.configure(model, side)
        plan = arm_plan.plan("real", training.labels, {}, paper.augmentation)
        recipe = registry.create(paper.recipe, config, plan)
        for compiled in variants:
            settings = paper.model_copy(update={"epochs": epochs, "compile": compiled})
            folder = work / f"{architecture}-{compiled}"
            folder.mkdir()
            clock, began = _Clock(), time.perf_counter()
            loop.fit(recipe, model, settings, training, validation, 0, Checkpoint(folder), clock)
            seconds = clock.ends[-1] - clock.ends[0]
            shown = (epochs - 1) * images
            network = supervised.build(config).to(automatic_device()).eval()
            supervised.probabilities(network, config, training.pixels[:256])
            started = time.perf_counter()
            scored = training.pixels[:2048]
            supervised.probabilities(network, config, scored)
            rows.append(
                {
                    "architecture": architecture,
                    "compiled": compiled,
                    "batch": settings.batch,
                    "trained_images_per_second": shown / seconds,
                    "scored_images_per_second": len(scored) / (time.perf_counter() - started),
                    "first_epoch_seconds": clock.ends[0] - began,
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def grid_hours(rows: list[dict[str, Any]]) -> float:
    """Hours of the Figure 4 grid at the best measured rates, one training after another."""
    from dermaflux.sweeps import grid, plan

    runs = grid.runs("figure4", grid.load("figure4"))
    from ruamel.yaml import YAML

    raw = YAML(typ="safe").load((ROOT / "profiles" / "paper.yaml").read_text(encoding="utf-8"))
    resolved = plan.resolve(raw, runs)
    trainings = plan.distinct([plan.trainings(params, None) for params in resolved])
    work = plan.passes(trainings, resolved[0].train.selection_images or 0)
    rates = {
        name: max(
            (row["trained_images_per_second"], row["scored_images_per_second"])
            for row in rows
            if row["architecture"] == name
        )
        for name in work
    }
    return plan.seconds(work, rates) / 3600


def main() -> None:
    """Print rates and hours and write JSON."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--images", type=int, default=12_800)
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    gpu = torch.cuda.is_available()
    content: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if gpu else platform.machine(),
        "images": arguments.images,
        "epochs": arguments.epochs,
    }
    with tempfile.TemporaryDirectory() as temporary:
        content["rates"] = gpu_rates(Path(temporary), arguments.images, arguments.epochs)
    content["figure4_hours"] = grid_hours(content["rates"])
    print(f"Figure 4, both architectures, five seeds: {content['figure4_hours']:.1f} h")
    if arguments.output:
        write_json(arguments.output, content)


if __name__ == "__main__":
    main()
