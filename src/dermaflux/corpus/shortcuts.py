"""What source and scale alone tell of the class, from the counts that `ingest` reports. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dermaflux.core.vocabulary import CLASSES
from dermaflux.params import SHORTCUT_LIMIT

Counts = Mapping[str, tuple[float, float]]
"""Category -> benign and malignant images."""


def auc(counts: Counts) -> float | None:
    """ROC-AUC of the malignant share of each image's category; None without one of the classes.

    The area under the curve through the categories, largest share first (Mann and Whitney 1947):
    of every pair of a malignant and a benign image, the one with the larger share wins, and two of
    one category win half.
    """
    present = [sizes for sizes in counts.values() if sum(sizes)]
    below = won = 0.0
    for benign, malignant in sorted(present, key=lambda sizes: sizes[1] / sum(sizes)):
        won += malignant * (below + benign / 2)
        below += benign
    pairs = below * sum(malignant for _, malignant in present)
    return won / pairs if pairs else None


def aucs(kept: Mapping[str, Mapping[str, Mapping[str, int]]]) -> dict[str, float]:
    """`source_auc` and `scale_auc` of one split: source -> label -> scale -> images."""
    by_source: dict[str, list[int]] = {}
    by_scale: dict[str, list[int]] = {}
    for source, labels in kept.items():
        for number, label in enumerate(CLASSES):
            for scale, images in labels.get(label, {}).items():
                by_source.setdefault(source, [0, 0])[number] += images
                by_scale.setdefault(scale, [0, 0])[number] += images
    found = {}
    for name, counts in (("source_auc", by_source), ("scale_auc", by_scale)):
        value = auc({category: (sizes[0], sizes[1]) for category, sizes in counts.items()})
        if value is not None:
            found[name] = value
    return found


def lines(shortcuts: Mapping[str, Any]) -> list[str]:
    """What the stage prints of the training split."""
    if not shortcuts:
        return []
    source, scale = shortcuts["source_auc"], shortcuts["scale_auc"]
    said = f"the source alone scores AUC {source:.3f} on the training split, the scale {scale:.3f}"
    if max(source, scale) <= SHORTCUT_LIMIT:
        return [f"ingest: {said} (0.5: they tell nothing of the class)"]
    return [
        f"warning: {said}, above {SHORTCUT_LIMIT}: a classifier can learn where an image is from "
        "in place of what it shows; train.draw matched draws both classes alike"
    ]
