"""By what epochs are compared: which validation images, which figure, which is better. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dermaflux.core.arrays import Array
from dermaflux.metrics import binary
from dermaflux.metrics.multiclass import mauc


def selection(labels: Array, limit: int | None) -> Array:
    """Indices, ascending, of about `limit` of the validation images with `labels` (N,).

    Each class keeps its share, at least one image, evenly spread over the class's images in their
    order, which is by source. All when `limit` is None or large enough.
    """
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    parts = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(1, round(limit * len(members) / len(labels)))
        parts.append(members[np.linspace(0, len(members) - 1, count).round().astype(int)])
    return np.sort(np.concatenate(parts))


def better(row: Mapping[str, float], best: Mapping[str, Any]) -> bool:
    """Whether an epoch beats the best one; without scores every epoch does."""
    value = row.get("validation_auc")
    return not best or value is None or value > best["auc"]


def auc_of(labels: Array, scores: Array) -> float:
    """ROC-AUC, of scores (N, K) the macro mean of each class against the rest."""
    return binary.auc(labels, scores) if scores.ndim == 1 else mauc(labels, scores)
