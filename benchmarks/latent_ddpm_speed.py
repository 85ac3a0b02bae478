"""Speed of a training step of the latent diffusion generator against diffusers' example.

    python benchmarks/latent_ddpm_speed.py --output benchmarks/results/latent_ddpm_speed.json

CPU seconds a step of the demo's U-Net and batch: ours (the stage `finetune` on cached latents), and
the step of diffusers' `examples/unconditional_image_generation` on tensors in memory.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dermaflux.core.distributed import join
from dermaflux.core.files import write_json
from dermaflux.generators import finetune
from dermaflux.generators.latent_ddpm import settings
from dermaflux.generators.latent_ddpm.model import unet
from dermaflux.generators.protocol import TrainingRun
from dermaflux.params import Finetune
from dermaflux.params.runtime import FinetuneRuntime
from dermaflux.tracking.runs import Silent

DEMO: dict[str, Any] = {
    "condition": "malignancy",
    "block_out_channels": [64, 128, 128],
    "layers_per_block": 1,
    "attention_levels": 2,
    "batch": 16,
}
_SHAPE = unet.Shape(16, 16, (64, 128, 128), 1, 2, 2)
_WARM = 3


class Stamps(Silent):
    """Takes the CPU time at every step, which other work on the machine hardly changes."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def metrics(self, values: Any, step: int) -> None:
        """Called after each step, since `log_steps` is 1."""
        if "gradient_norm" in values:
            self.times.append(time.process_time())

    def seconds(self) -> float:
        """Median CPU seconds from one step to the next, after the first few."""
        return float(np.median(np.diff(self.times[_WARM:])))


def ours(folder: Path, steps: int) -> float:
    """CPU seconds a step of the stage itself, with held-out loss and grid off."""
    import stand_in

    corpus, captions = stand_in.write_corpus(folder, [128] * 64)
    stand_in.write_backbone(folder / "backbone")
    trained = settings.Finetune(**DEMO, scale=128, steps=steps, perceptual_weight=0.0)
    section = Finetune.model_validate(
        {"scales": [128], "validation_images": 0, "latent_ddpm": trained}
    )
    runtime = FinetuneRuntime(log_steps=1, checkpoint_steps=100_000, grid_steps=100_000)
    log, inputs = Stamps(), (corpus, captions, folder / "backbone")
    run = TrainingRun(section, trained, runtime, 0, *inputs, folder / "grid.png", log, join())
    finetune.finetune("latent_ddpm", run, folder / "generator")
    return log.seconds()


def theirs(steps: int) -> float:
    """CPU seconds of the example script's step: noise, U-Net, MSE, clip, AdamW, cosine, EMA."""
    from accelerate import Accelerator
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel

    accelerator = Accelerator(cpu=True)
    model, schedule = unet.build(_SHAPE), DDPMScheduler()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.95, 0.999))
    cosine = get_scheduler("cosine", optimiser, num_warmup_steps=5, num_training_steps=steps)
    model, optimiser, cosine = accelerator.prepare(model, optimiser, cosine)
    average = EMAModel(model.parameters(), use_ema_warmup=True)
    latents, stamps = torch.randn(DEMO["batch"], 16, 16, 16), Stamps()
    for step in range(steps):
        noise = torch.randn_like(latents)
        times = torch.randint(0, 1000, (len(latents),))
        labels = torch.randint(0, 2, (len(latents),))
        point = schedule.add_noise(latents, noise, times)
        loss = torch.nn.functional.mse_loss(model(point, times, class_labels=labels).sample, noise)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        cosine.step()
        optimiser.zero_grad()
        average.step(model.parameters())
        loss.item()
        stamps.metrics({"gradient_norm": 0.0}, step)
    return stamps.seconds()


def speed(steps: int) -> dict[str, Any]:
    """Both, in turn, twice: other work on the machine then shows as a difference of the two."""
    rows = []
    home = Path.cwd()
    for turn in range(2):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / ".dvc").mkdir()
            os.chdir(folder)
            row = {"turn": turn, "ours": ours(Path(folder), steps)}
            os.chdir(home)
        row |= {"diffusers": theirs(steps)}
        rows.append(row | {"times_as_fast": row["diffusers"] / row["ours"]})
        print("CPU seconds a step:", {name: round(value, 4) for name, value in rows[-1].items()})
    return {
        "cpu_seconds_per_step": rows,
        "batch": DEMO["batch"],
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Measure, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    result = speed(arguments.steps)
    if arguments.output:
        write_json(arguments.output, result)


if __name__ == "__main__":
    main()
