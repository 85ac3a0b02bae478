"""Does the interval of the exchange rate hold the truth, where the truth is known?

Simulates runs whose learning curve and whose mixture's equivalent in real images are given: seeds
that scatter, and test images that all cells share, either as scores of each test image, whose AUCs
are bootstrapped as in a run, or as normal AUCs (faster). Prints for each setting how often the 95 %
interval of `dermaflux.statistics.exchange_rate` held the truth, and how often it lay above or
below; where the truth is that the images were worth nothing, `above` is the share of false claims.

    python benchmarks/exchange_rate.py [--trials 1000] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri

from dermaflux.errors import InputError
from dermaflux.metrics import binary
from dermaflux.statistics import bootstrap
from dermaflux.statistics.exchange_rate import exchange_rate
from dermaflux.statistics.seed_means import SeedMean

REAL, SYNTHETIC = 240, 420
BENIGN, MALIGNANT = 200, 100
RESAMPLES = 100  # the variance is known to 14 %, which the intervals do not notice
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Setting:
    """One situation with a known truth."""

    worth: int = 0
    """Further real images that the synthetic ones stand for."""
    seeds: int = 3
    seed_noise: float = 0.02
    """Standard deviation of a cell's AUC over seeds."""
    sizes: tuple[int, ...] = (120, 240, 480, 960)
    law: tuple[float, float, float] = (0.898, 1.56, 0.32)
    """Asymptote, coefficient and exponent; the default is measured on the phantom at 64 px."""
    scores: bool = False
    """Whether test images are simulated one by one."""
    each_seed: bool = True
    """Whether scores are resampled for each seed, and not for the mean over seeds alone."""
    image_noise: float = 0.02
    """Standard deviation of a cell's AUC over test sets; scores have that of 300 images."""
    shared_images: float = 0.8
    """Correlation of two cells' AUCs over test sets; of scores, of two networks' scores."""
    shared_seeds: float = 0.3
    """Correlation of two cells' AUCs over seeds: they share initial weights and real images."""

    def expected(self) -> Array:
        """(K + 1,) AUC of each size and of the mixture."""
        asymptote, coefficient, exponent = self.law
        images = np.array([*self.sizes, REAL + self.worth], float)
        return np.asarray(asymptote - coefficient * images**-exponent)


def correlated(random: np.random.Generator, deviation: float, shared: float, shape: Any) -> Array:
    """Normal values whose rows, along the first axis, are correlated."""
    common, own = random.standard_normal(shape[1:]), random.standard_normal(shape)
    return np.asarray(deviation * (math.sqrt(shared) * common + math.sqrt(1 - shared) * own))


def normal_cells(setting: Setting, random: np.random.Generator) -> list[SeedMean]:
    """AUCs of every size and of the mixture: normal, with resamples that are normal too."""
    expected = setting.expected()[:, None]
    cells, noise, shared = len(expected), setting.image_noise, setting.shared_images
    seeds = correlated(random, setting.seed_noise, setting.shared_seeds, (cells, setting.seeds))
    values = expected + seeds + correlated(random, noise, shared, (cells, 1))
    resampled = values.mean(axis=1, keepdims=True)
    resampled = resampled + correlated(random, noise, shared, (cells, RESAMPLES))
    return [SeedMean(*cell) for cell in zip(values, resampled, strict=True)]


def scored_cells(setting: Setting, random: np.random.Generator) -> list[SeedMean]:
    """AUCs of scores: two normal classes; networks agree on which images are hard."""
    expected = setting.expected()[:, None]
    shape = (len(expected), setting.seeds)
    aucs = expected + correlated(random, setting.seed_noise, setting.shared_seeds, shape)
    labels = np.repeat([0, 1], [BENIGN, MALIGNANT])
    noise = correlated(random, 1.0, setting.shared_images, (math.prod(shape), len(labels)))
    scores = noise.reshape(*shape, -1) + math.sqrt(2) * ndtri(aucs)[..., None] * labels
    number = int(random.integers(2**31))
    weights = bootstrap.resamples(labels, np.arange(len(labels)), RESAMPLES, number)
    weights = np.vstack([np.ones_like(weights[:1]), weights])
    drawn = np.array(
        [[binary.bootstrap_auc(labels, seed, weights) for seed in cell] for cell in scores]
    )
    resampled = drawn[..., 1:] if setting.each_seed else drawn[..., 1:].mean(axis=1)
    return [SeedMean(*cell) for cell in zip(drawn[..., 0], resampled, strict=True)]


def coverage(setting: Setting, trials: int, seed: int = 0) -> dict[str, float]:
    """Shares of the answers whose interval holds the truth, lies above it and below it."""
    random = np.random.default_rng(seed)
    cells = scored_cells if setting.scores else normal_cells
    counts = dict.fromkeys(("holds", "above", "below", "two_sided", "refused"), 0)
    for _ in range(trials):
        *curve, mixture = cells(setting, random)
        by_size = dict(zip(setting.sizes, curve, strict=True))
        try:
            worth = exchange_rate(by_size, mixture, REAL, SYNTHETIC, 0.95).worth
        except InputError:  # the curve did not rise
            counts["refused"] += 1
            continue
        above = worth.low is not None and worth.low > setting.worth
        below = worth.high is not None and worth.high < setting.worth
        counts["above"] += above
        counts["below"] += below
        counts["holds"] += not above and not below
        counts["two_sided"] += worth.low is not None and worth.high is not None
    answers = trials - counts["refused"]
    shares = {name: count / max(answers, 1) for name, count in counts.items()}
    return shares | {"refused": counts["refused"] / trials}


SETTINGS = [
    *(Setting(worth, seeds, scores=True) for seeds in (3, 5) for worth in (0, 160, 420)),
    *(Setting(0, seeds, scores=True, each_seed=False) for seeds in (3, 5)),
    *(
        Setting(worth, seeds, noise)
        for seeds in (3, 5)
        for noise in (0.01, 0.03)
        for worth in (-60, 0, 160, 420)
    ),
    *(Setting(worth, seeds, sizes=(120, 240, 480)) for seeds in (3, 5) for worth in (0, 160)),
    *(Setting(420, seeds, sizes=(60, 120, 240, 480, 960, 1920)) for seeds in (3, 5)),
    *(Setting(0, 3, law=law) for law in ((0.95, 1.0, 0.1), (0.85, 9.0, 0.8))),
    Setting(0, 3, shared_seeds=0.9),
    Setting(0, 3, image_noise=0.002),
    Setting(0, 2),
    Setting(1500, 5, 0.01),  # beyond the largest size: the interval must be open above
]


def main() -> None:
    """Simulate every setting, print a line for each and write all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows = []
    for number, setting in enumerate(SETTINGS):
        rows.append({**asdict(setting), **coverage(setting, given.trials, seed=number)})
        print(json.dumps(rows[-1]), flush=True)
        if given.out:
            result = {"confidence": 0.95, "trials": given.trials, "rows": rows}
            given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
