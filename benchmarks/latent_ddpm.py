"""Quality of the latent diffusion generator on real images.

    python benchmarks/latent_ddpm.py --corpus corpus --backbone models/backbone \
        --features weights/squeezenet --steps 1000 --output benchmarks/results/latent_ddpm.json

Trains on balanced training images of an ingested corpus and scores samples: z-KID
(SqueezeNet 1.0 features, z-scored on balanced real training images, clipped to +-10) against the
training and the test split, and class AUC (does a logistic probe trained on real images recover the
class that was asked for?). Real test images, and the same through the autoencoder, are scored
first: what is near them is as good as this judge can tell. Several `--perceptual-weight`,
`--seeds` and `--samplers` give a row each; train with decoder features, so that the judge is
another network.
`--pools` scores folders of other generators' pools, `--generators` trained generator folders.
Features are those of images at their own size; `--features-side 224` enlarges them first, and then
the autoencoder's blur alone costs more than a KID of 1.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from latent_ddpm_speed import DEMO
from PIL import Image

from dermaflux.audit.fidelity import mmd
from dermaflux.audit.trunks import Trunk, open_trunk
from dermaflux.core import table
from dermaflux.core.arrays import Array, Pixels
from dermaflux.core.distributed import join
from dermaflux.core.files import write_json
from dermaflux.core.hashing import rank
from dermaflux.core.seeds import derived_seed
from dermaflux.core.vocabulary import CLASSES
from dermaflux.generators import finetune
from dermaflux.generators.data import autoencoder
from dermaflux.generators.data.latents import posterior
from dermaflux.generators.latent_ddpm import settings
from dermaflux.generators.latent_ddpm.sampling.generator import GENERATOR
from dermaflux.generators.protocol import Condition, Models, TrainingRun
from dermaflux.params import Audit, Finetune
from dermaflux.params.runtime import FinetuneRuntime
from dermaflux.tracking.runs import Silent
from dermaflux.training.validation_events import save_grid


@dataclass(frozen=True)
class Judge:
    """Real images in the feature space, and the probe trained on them."""

    trunk: Trunk
    side: int | None
    mean: Array
    deviation: Array
    train: Array
    test: Array
    probe: Any

    def features(self, images: Pixels) -> Array:
        """(N, D), z-scored and clipped."""
        return _clipped(self.mean, self.deviation, _extracted(self.trunk, images, self.side))

    def score(self, images: Pixels, labels: Sequence[str]) -> dict[str, float]:
        """z-KID against both splits, and the AUC of the class asked for."""
        from sklearn.metrics import roc_auc_score

        features = self.features(images)
        asked = np.array(labels) == CLASSES[1]
        return {
            "z_kid_train": mmd.kid(features, self.train, 0)[0].mean,
            "z_kid_test": mmd.kid(features, self.test, 0)[0].mean,
            "class_auc": float(roc_auc_score(asked, self.probe.decision_function(features))),
        }


def _extracted(trunk: Trunk, images: Pixels, side: int | None) -> Array:
    if side is not None:
        images = np.stack(
            [
                np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
                for image in images
            ]
        )
    return np.concatenate(
        [trunk.function(images[i : i + 32])[0] for i in range(0, len(images), 32)]
    )


def _clipped(mean: Array, deviation: Array, features: Array) -> Array:
    return np.asarray(((features - mean) / deviation).clip(-10, 10))


def balanced(corpus: Path, split: str, count: int, side: int) -> tuple[Pixels, list[str]]:
    """Up to `count` images of a split, as many of each class, by hash."""
    rows = table.metadata(corpus, ["image_id", "label", "split"])
    labels = dict(rows[rows["split"] == split][["image_id", "label"]].to_numpy())
    by_class = [
        sorted((i for i in labels if labels[i] == c), key=lambda i: rank("judge", i))
        for c in CLASSES
    ]
    each = min(count // 2, *map(len, by_class))
    chosen = [image_id for members in by_class for image_id in members[:each]]
    pixels = table.pixels(corpus, chosen, side)
    return np.stack([pixels[i] for i in chosen]), [labels[i] for i in chosen]


def judge(arguments: argparse.Namespace) -> Judge:
    """Features of real images at the generator's size."""
    from sklearn.linear_model import LogisticRegression

    trunk = open_trunk(Audit(features=str(arguments.features)))
    train, labels = balanced(arguments.corpus, "train", arguments.images, arguments.scale)
    test, test_labels = balanced(arguments.corpus, "test", arguments.images, arguments.scale)
    side = arguments.features_side
    raw, raw_test = (_extracted(trunk, part, side) for part in (train, test))
    mean, deviation = raw.mean(0), raw.std(0) + 1e-6
    features, held = (_clipped(mean, deviation, part) for part in (raw, raw_test))
    probe = LogisticRegression(C=0.01, max_iter=1000).fit(features, np.array(labels) == CLASSES[1])
    return Judge(trunk, side, mean, deviation, features, held, probe)


def limits(arguments: argparse.Namespace, scored: Judge) -> list[dict[str, Any]]:
    """Rows of real test images, balanced, and of the same through the autoencoder."""
    images, labels = balanced(arguments.corpus, "test", arguments.images, arguments.scale)
    origin = autoencoder.reference(arguments.latents, None, arguments.backbone, "latent_ddpm")
    vae = autoencoder.load(origin, torch.device("cpu"))
    through = []
    shift = float(getattr(vae.config, "shift_factor", None) or 0.0)
    for start in range(0, len(images), 16):
        part = torch.from_numpy(images[start : start + 16]).permute(0, 3, 1, 2)
        mean, _ = posterior(vae, list(part))
        with torch.inference_mode():
            latents = (mean - shift) * float(vae.config.scaling_factor)
            through.append(autoencoder.pixels(vae, latents))
    return [
        {"real": "test", **scored.score(images, labels)},
        {"real": "test, through the autoencoder", **scored.score(np.concatenate(through), labels)},
    ]


def trained(arguments: argparse.Namespace, weight: float, seed: int) -> tuple[Path, float]:
    """A generator folder, and the CPU minutes of the stage."""
    output = arguments.work / f"{arguments.prediction}-{weight:g}-{seed}"
    chosen = settings.Finetune(
        **DEMO, scale=arguments.scale, latents=arguments.latents, prediction=arguments.prediction,
        steps=arguments.steps, learning_rate=arguments.learning_rate, ema_decay=0.999,
        perceptual_weight=weight, perceptual_features=arguments.perceptual_features,
    )  # fmt: skip
    section = Finetune.model_validate(
        {"scales": [128, 256, 512], "maximum_images": arguments.images, "validation_images": 64,
         "validation_steps": 200, "latent_ddpm": chosen}
    )  # fmt: skip
    run = TrainingRun(
        section, chosen, FinetuneRuntime(grid_steps=500), seed, arguments.corpus, Path("none"),
        arguments.backbone, output.with_name(f"{output.name}.png"), Silent(), join(),
    )  # fmt: skip
    began = time.process_time()
    finetune.finetune("latent_ddpm", run, output)
    return output, (time.process_time() - began) / 60


def sampled(arguments: argparse.Namespace, folder: Path, name: str) -> dict[str, Any]:
    """Images of one sampler, `name:steps`, with their cost; saves a grid beside the weights."""
    sampler, steps = name.split(":")
    chosen = settings.Synthesize(
        sampler=sampler, steps=int(steps), guidance=arguments.guidance,
        clip_sample_range=arguments.clip_sample_range,
    )  # fmt: skip
    opened = GENERATOR.open(Models(folder, arguments.backbone), chosen.model_dump())
    labels = [CLASSES[index % 2] for index in range(arguments.samples)]
    conditions = [
        Condition(label, "", arguments.scale, derived_seed("benchmark", index))
        for index, label in enumerate(labels)
    ]
    began = time.process_time()
    images = np.concatenate([opened(conditions[i : i + 16]) for i in range(0, len(labels), 16)])
    seconds = (time.process_time() - began) / len(images)
    save_grid(images[:32], 8, folder.with_name(f"{folder.name}-{sampler}-{steps}.png"))
    return {"images": images, "labels": labels, "cpu_seconds_per_image": seconds}


def quality(arguments: argparse.Namespace) -> dict[str, Any]:
    """A row for every weight, seed and sampler, and for every other pool."""
    scored = judge(arguments)
    rows = limits(arguments, scored)
    print(*rows, sep="\n", flush=True)
    for folder, name in itertools.product(arguments.generators or [], arguments.samplers):
        found = sampled(arguments, folder, name)
        row = scored.score(found.pop("images"), found.pop("labels"))
        rows.append({"generator": folder.name, "sampler": name, **found, **row})
        print(rows[-1], flush=True)
    seeds = arguments.seeds if arguments.generators is None else []
    for weight, seed in itertools.product(arguments.perceptual_weight, seeds):
        folder, minutes = trained(arguments, weight, seed)
        for name in arguments.samplers:
            found = sampled(arguments, folder, name)
            row = scored.score(found.pop("images"), found.pop("labels"))
            rows.append(
                {"perceptual_weight": weight, "seed": seed, "sampler": name,
                 "training_cpu_minutes": minutes, **found, **row}
            )  # fmt: skip
            print(rows[-1], flush=True)
    for pool in arguments.pools:
        images, labels = balanced(pool, "train", arguments.samples, arguments.scale)
        rows.append({"pool": pool.name, **scored.score(images, labels)})
        print(rows[-1], flush=True)
    names = ["images", "samples", "scale", "features_side", "guidance", "clip_sample_range"]
    if arguments.generators is None:
        names += ["prediction", "steps", "learning_rate", "perceptual_features"]
    options = {name: getattr(arguments, name) for name in names}
    return {"rows": rows, "options": options | {"latents": Path(arguments.latents).name}}


def main() -> None:
    """Measure, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1100)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, default=Path("models/backbone"))
    parser.add_argument("--latents", default="backbone")
    parser.add_argument(
        "--features", type=Path, required=True, help="folder of SqueezeNet 1.0, the judge"
    )
    parser.add_argument("--features-side", type=int, help="side in px to which images are enlarged")
    parser.add_argument("--images", type=int, default=2000, help="real training images, balanced")
    parser.add_argument("--samples", type=int, default=160)
    parser.add_argument("--scale", type=int, default=128)
    parser.add_argument("--prediction", default="flow")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--perceptual-weight", type=float, nargs="*", default=[0.0])
    parser.add_argument("--perceptual-features", default="decoder")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--samplers", nargs="*", default=["euler:20"])
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--clip-sample-range", type=float)
    parser.add_argument("--generators", type=Path, nargs="*", help="in place of training")
    parser.add_argument("--pools", type=Path, nargs="*", default=[])
    parser.add_argument("--work", type=Path, default=Path("benchmark-latent-ddpm"))
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    result = quality(arguments)
    if arguments.output:
        write_json(arguments.output, result)


if __name__ == "__main__":
    main()
