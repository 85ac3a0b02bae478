"""What the published draw of real images teaches a classifier, from the published counts alone.

Needs no image: reads the counts that the adapters of the eleven datasets declare (each from its
publisher) and the paper's numbers, 2,500 real images, half malignant, and 1.75 synthetic ones per
real one, and computes

- what a pooled draw is expected to hold of each dataset, and what `train.draw: matched` holds;
- the AUC of the dataset alone, of the scale alone, and of "not a tile of ISIC 2024", among the
  images drawn and on the published test parts;
- the same AUC of the dataset among the images of the mixture, whose synthetic images, half
  malignant, are a source of their own: by how much the arms differ;
- in a model of two inputs, what the shortcut does to accuracy: a classifier sees whether an image
  is a tile and one normal feature of the lesion, whose means of benign and malignant lesions are so
  far apart that the feature alone has a given AUC, and answers by the Bayes rule of what was drawn.

    python benchmarks/shortcut.py --output benchmarks/results/shortcut.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from dermaflux.core.files import write_json
from dermaflux.corpus import shortcuts
from dermaflux.sources import registry
from dermaflux.sources.adapter import Source

REAL, RATIO = 2500, 1.75  # paper, section 3.3
TILES = "isic2024"
FEATURE_AUC = (0.7, 0.8, 0.9)


def published() -> dict[str, tuple[float, float]]:
    """Dataset -> benign and malignant training images of the paper's protocol.

    Images of indeterminate class are left out. Nobody published how DERM12345's training part
    divides; it is taken to divide as its test part does.
    """
    counts = {}
    for source in registry.SOURCES.values():
        if source.published_scale is not None:
            benign, malignant = training(source)
            counts[source.name] = (benign, malignant)
    return counts


def training(source: Source) -> tuple[float, float]:
    """Benign and malignant images of the parts that the paper trains on."""
    benign = malignant = 0.0
    for split, part in source.counts.items():
        if split != "train" and not source.test_in_paper:
            continue
        if part.benign is None or part.malignant is None:
            known = source.counts["test"]
            assert known.benign is not None
            assert known.malignant is not None
            images = part.images - part.indeterminate
            share = known.malignant / (known.benign + known.malignant)
            benign, malignant = benign + images * (1 - share), malignant + images * share
        else:
            benign, malignant = benign + part.benign, malignant + part.malignant
    return benign, malignant


def tested() -> dict[str, tuple[int, int]]:
    """Dataset -> benign and malignant images of the paper's held-out test parts."""
    found = {}
    for source in registry.SOURCES.values():
        part = source.counts.get("test")
        if part and source.published_scale is not None and not source.test_in_paper:
            found[source.name] = (part.benign or 0, part.malignant or 0)
    return found


def pooled(counts: shortcuts.Counts) -> dict[str, tuple[float, float]]:
    """Expected images of each dataset among `REAL` drawn from all of a class, half of each."""
    benign, malignant = (sum(sizes[k] for sizes in counts.values()) for k in (0, 1))
    half = REAL / 2
    return {n: (half * b / benign, half * m / malignant) for n, (b, m) in counts.items()}


def matched(counts: shortcuts.Counts) -> dict[str, tuple[float, float]]:
    """As `pooled`, in pairs of one dataset; the paper's scale is one of the dataset."""
    pairs = {name: min(sizes) for name, sizes in counts.items()}
    share = REAL / 2 / sum(pairs.values())
    return {name: (share * count, share * count) for name, count in pairs.items()}


def judged(train: shortcuts.Counts, test: shortcuts.Counts) -> float | None:
    """AUC on the test images of the malignant share that each dataset has in training."""
    order: dict[float, list[float]] = {}
    for name, (benign, malignant) in test.items():
        sizes = order.setdefault(train[name][1] / sum(train[name]), [0, 0])
        sizes[0], sizes[1] = sizes[0] + benign, sizes[1] + malignant
    below = won = 0.0
    for share in sorted(order):
        benign, malignant = order[share]
        won += malignant * (below + benign / 2)
        below += benign
    total = sum(malignant for _, malignant in order.values())
    return won / (below * total)


def by_scale(counts: shortcuts.Counts) -> dict[str, tuple[float, float]]:
    """The paper's scales: one per dataset."""
    scales: dict[str, tuple[float, float]] = {}
    for name, (benign, malignant) in counts.items():
        scale = str(registry.SOURCES[name].published_scale)
        before = scales.get(scale, (0.0, 0.0))
        scales[scale] = (before[0] + benign, before[1] + malignant)
    return scales


def tiles(counts: shortcuts.Counts) -> dict[str, tuple[float, float]]:
    """Tiles and all others."""
    others = [sizes for name, sizes in counts.items() if name != TILES]
    rest = (sum(b for b, _ in others), sum(m for _, m in others))
    return {"tile": counts.get(TILES, (0, 0)), "other": rest}


def answers(
    drawn: shortcuts.Counts, test: shortcuts.Counts, feature_auc: float
) -> dict[str, float]:
    """What the Bayes rule of the images drawn does on the test parts, which hold no tile."""
    half = np.sqrt(2) * norm.ppf(feature_auc) / 2  # means at -half and +half, deviation 1
    benign, malignant = tiles(drawn)["other"]
    threshold = -np.log(malignant / benign) / (2 * half)
    sensitivity, called = (float(norm.sf(threshold, mean)) for mean in (half, -half))
    benign, malignant = (sum(sizes[k] for sizes in test.values()) for k in (0, 1))
    return {
        "called_malignant": (called * benign + sensitivity * malignant) / (benign + malignant),
        "accuracy": ((1 - called) * benign + sensitivity * malignant) / (benign + malignant),
        "sensitivity": sensitivity,
        "specificity": 1 - called,
    }


def draw(drawn: shortcuts.Counts, test: shortcuts.Counts) -> dict[str, Any]:
    """Composition and AUCs of one law of drawing."""
    return {
        "images": {name: [round(size, 1) for size in sizes] for name, sizes in drawn.items()},
        "auc": {
            "source": shortcuts.auc(drawn),
            "scale": shortcuts.auc(by_scale(drawn)),
            "tile": shortcuts.auc(tiles(drawn)),
        },
        "source_auc_of_mixture": shortcuts.auc({**drawn, "synthetic": (RATIO * REAL / 2,) * 2}),
        "source_auc_on_test": judged(drawn, test),
    }


def main() -> None:
    """Compute and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    output = parser.parse_args().output
    counts, test = published(), tested()
    draws = {"pooled": pooled(counts), "matched": matched(counts)}
    model = {
        f"{auc:g}": {law: answers(drawn, test, auc) for law, drawn in draws.items()}
        for auc in FEATURE_AUC
    }
    result = {
        "n_real": REAL,
        "n_synthetic": RATIO * REAL,
        "published": {name: [round(size, 1) for size in sizes] for name, sizes in counts.items()},
        "test": {name: list(sizes) for name, sizes in test.items()},
        "corpus_auc": {"source": shortcuts.auc(counts), "scale": shortcuts.auc(by_scale(counts))},
        "pairs": round(sum(min(sizes) for sizes in counts.values())),
        "draws": {law: draw(drawn, test) for law, drawn in draws.items()},
        "model_of_feature_auc": model,
    }
    write_json(output, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
