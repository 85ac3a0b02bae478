"""The linear probe: how well a logistic regression tells malignancy from frozen features.

Features of the pre-trained encoder are compared with those of its initial weights: a random network
with correct positions already tells much (He et al. 2022, section 4; part of every figure here).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from dermaflux.classifiers.data.samples import Images
from dermaflux.classifiers.model import network
from dermaflux.core.arrays import Array
from dermaflux.metrics import binary
from dermaflux.metrics.binary import bootstrap_auc

_PENALTY = 0.1
"""scikit-learn's C on standardised features."""


def features(net: nn.Module, config: Mapping[str, Any], images: Images, batch: int) -> Array:
    """(N, D) float32: what the last layer of a timm model sees of uint8 images (N, S, S, 3)."""
    device = next(net.parameters()).device
    net.eval()
    parts = []
    with torch.inference_mode():
        for first in range(0, len(images), batch):
            pixels = network.read(images, slice(first, first + batch)).to(device)
            tokens = net.forward_features(  # type: ignore[operator]
                network.normalise(network.unit(pixels), dict(config))
            )
            parts.append(net.forward_head(tokens, pre_logits=True).cpu().numpy())  # type: ignore[operator]
    return np.concatenate(parts)


def probability(training: Array, labels: Array, scored: Array) -> Array:
    """(M,) probability of malignancy of features (M, D), learned from features (N, D)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=_PENALTY, class_weight="balanced", max_iter=2000)
    )
    column: Array = model.fit(training, labels).predict_proba(scored)[:, 1]
    return column


def figures(
    labels: Array, scores: Mapping[str, Array], weights: Array, interval: Sequence[float]
) -> dict[str, dict[str, float]]:
    """AUC of each of `scores` (M,) with a bootstrap interval, and of the first minus the second.

    `weights` (B, M) are paired resamples of the images; `interval` are two quantiles.
    """
    resampled = {name: bootstrap_auc(labels, values, weights) for name, values in scores.items()}
    points = {name: binary.auc(labels, values) for name, values in scores.items()}
    first, second = scores
    points["difference"] = points[first] - points[second]
    resampled["difference"] = resampled[first] - resampled[second]
    return {
        name: {
            "auc": points[name],
            "auc_low": float(np.quantile(resampled[name], interval[0])),
            "auc_high": float(np.quantile(resampled[name], interval[1])),
        }
        for name in points
    }
