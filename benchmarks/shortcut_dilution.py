"""Do images without any class signal gain over real ones, because they dilute a shortcut?

The composition that `benchmarks/shortcut.py` computes from the published counts, on phantom
lesions: a source that shows a black border is 84 % of the benign and 2 % of the malignant images of
training and validation, and absent from the test images. Synthetic images are fresh lesions without
a border whose labels are permuted. Arms: `real`; `repeated`, the same real images as often as the
mixture has images; `permuted`, real and synthetic images. Real images are drawn `pooled`, as
published, and `matched`, in pairs of one source (`train.draw`).

    python benchmarks/shortcut_dilution.py --output benchmarks/results/shortcut_dilution.json

A small convolutional network of its own, of which a seed of one draw takes 18 CPU seconds; the
epoch is the one with the best AUC on validation images drawn as the real ones are. Accuracy is at
0.5. Intervals cover seeds and test images and are simultaneous for the four comparisons of a draw.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dermaflux.core.files import write_json
from dermaflux.metrics import binary
from dermaflux.phantom.lesion import draw as draw_lesion
from dermaflux.phantom.render import render
from dermaflux.statistics import bootstrap
from dermaflux.statistics.seed_means import SeedMean

SIDE, BORDER = 32, 3  # pixels
REAL, VALIDATION, TEST, RATIO = 600, 300, 1000, 1.75
BORDERED = {"pooled": (0.84, 0.02), "matched": (0.04, 0.04)}
"""Draw -> shares of benign and of malignant images that show the border: the published draw's
1,051 and 16 of 1,250; as many pairs of that source as a matched draw takes, 19 of 1,250, doubled
so that a small draw holds some."""
EPOCHS, BATCH, RATE, RESAMPLES = 12, 50, 2e-3, 400
CONFIDENCE = 0.95
ARMS = ("real", "repeated", "permuted")


def images(stream: str, count: int, shares: tuple[float, float]) -> tuple[torch.Tensor, np.ndarray]:
    """(N, 3, H, W) float32 and labels (N,), half malignant, of lesions that no other stream has."""
    pixels, labels = [], np.arange(count) % 2
    for index, label in enumerate(labels):
        lesion = draw_lesion(index, f"dilution/{stream}", "malignant" if label else "benign")
        picture = render(lesion, SIDE, SIDE)
        if index // 2 < round(shares[label] * (count // 2)):
            inside = picture[BORDER:-BORDER, BORDER:-BORDER].copy()
            picture[:] = 0
            picture[BORDER:-BORDER, BORDER:-BORDER] = inside
        pixels.append(picture)
    stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    return (stacked.float() / 127.5 - 1).contiguous(), labels


def network() -> nn.Module:
    """Four convolutions, 60,000 weights."""
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1))


def train(
    pixels: torch.Tensor, labels: np.ndarray, held_out: tuple[torch.Tensor, np.ndarray], seed: int
) -> nn.Module:
    """The network of the epoch with the best validation AUC."""
    torch.manual_seed(seed)
    net, truth = network(), torch.from_numpy(labels).float()
    steps = EPOCHS * -(-len(labels) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    best, kept = -1.0, net.state_dict()
    for _ in range(EPOCHS):
        net.train()
        for chosen in torch.randperm(len(labels)).split(BATCH):
            shown = pixels[chosen]
            shown = shown.flip(3) if torch.rand(()) < 0.5 else shown
            loss = nn.functional.binary_cross_entropy_with_logits(net(shown)[:, 0], truth[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        auc = binary.auc(held_out[1], probabilities(net, held_out[0]))
        if auc > best:
            best, kept = auc, {k: v.clone() for k, v in net.state_dict().items()}
    net.load_state_dict(kept)
    return net


@torch.inference_mode()
def probabilities(net: nn.Module, pixels: torch.Tensor) -> np.ndarray:
    """(N,) P(malignant)."""
    return np.asarray(torch.sigmoid(net.eval()(pixels)[:, 0]).double())


def seed_scores(draw: str, seed: int, tests: torch.Tensor) -> dict[str, Any]:
    """Probabilities (N,) of the test images and the validation AUC of each arm, for one seed."""
    real = images(f"real/{draw}/{seed}", REAL, BORDERED[draw])
    held_out = images(f"validation/{draw}/{seed}", VALIDATION, BORDERED[draw])
    added = round(REAL * RATIO)
    fresh, labels = images(f"synthetic/{seed}", added, (0, 0))
    permuted = np.random.default_rng(seed).permutation(labels)
    again = np.resize(np.arange(REAL), added)
    shown = {
        "real": real,
        "repeated": (
            torch.cat([real[0], real[0][again]]),
            np.concatenate([real[1], real[1][again]]),
        ),
        "permuted": (torch.cat([real[0], fresh]), np.concatenate([real[1], permuted])),
    }
    results = {}
    for arm in ARMS:
        net = train(*shown[arm], held_out, seed)
        validation = binary.auc(held_out[1], probabilities(net, held_out[0]))
        results[arm] = (probabilities(net, tests), validation)
    return results


def measure(draw: str, seeds: int) -> dict[str, Any]:
    """Accuracy and AUC of each arm, and what `permuted` gains, with intervals."""
    tests, labels = images("test", TEST, (0, 0))
    drawn = bootstrap.resamples(labels, np.arange(TEST), RESAMPLES, seed=0)
    weights = np.vstack([np.ones_like(drawn[:1]), drawn])
    by_seed = [seed_scores(draw, seed, tests) for seed in range(seeds)]
    means: dict[str, dict[str, SeedMean]] = {"accuracy": {}, "auc": {}}
    for arm in ARMS:
        scores = [each[arm][0] for each in by_seed]
        right = [((score >= 0.5) == labels) @ weights.T / weights.sum(axis=1) for score in scores]
        aucs = [binary.bootstrap_auc(labels, score, weights) for score in scores]
        for name, values in (("accuracy", np.array(right)), ("auc", np.array(aucs))):
            means[name][arm] = SeedMean(values[:, 0], values[:, 1:])
    gains = []
    for name, of in means.items():
        for against in ARMS[:2]:
            gain = of["permuted"].minus(of[against], CONFIDENCE, 4)
            row = {"metric": name, "against": against, "gain": gain.value}
            gains.append(row | {"low": gain.low, "high": gain.high})
    return {
        "arms": {
            name: {arm: asdict(mean.estimate(CONFIDENCE)) for arm, mean in of.items()}
            for name, of in means.items()
        },
        "called_malignant": {
            arm: float(np.mean([(each[arm][0] >= 0.5).mean() for each in by_seed])) for arm in ARMS
        },
        "validation_auc": {arm: float(np.mean([each[arm][1] for each in by_seed])) for arm in ARMS},
        "permuted_minus": gains,
    }


def main() -> None:
    """Measure both draws, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        **{"n_real": REAL, "ratio": RATIO, "bordered": BORDERED, "test_images": TEST},
        **{"seeds": given.seeds, "draws": {}},
    }
    for draw in BORDERED:
        result["draws"][draw] = measure(draw, given.seeds)
        result["cpu_minutes"] = time.process_time() / 60
        write_json(given.output, result)
        print(json.dumps({draw: result["draws"][draw]}, indent=1), flush=True)


if __name__ == "__main__":
    main()
