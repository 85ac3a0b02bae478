"""What source and scale alone tell of the class, from the counts that `ingest` reports. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dermaflux.core.vocabulary import CLASSES
from dermaflux.params import SHORTCUT_LIMIT

Counts = Mapping[str, tuple[float, float]]
"""Category -> benign and malignant images."""


def auc(counts: Counts) -> float | None:
    """ROC-AUC of the malignant share of each image's category; None without one of the classes.

    Images of one category count half against each other, as ties do (Mann and Whitney 1947).
    """
    from sklearn.metrics import roc_auc_score

    present = np.array([sizes for sizes in counts.values() if sum(sizes)], float).reshape(-1, 2)
    if not present.sum(axis=0).all():
        return None
    shares, labels = present[:, 1] / present.sum(axis=1), np.repeat([0, 1], len(present))
    return float(roc_auc_score(labels, np.tile(shares, 2), sample_weight=present.T.ravel()))


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
