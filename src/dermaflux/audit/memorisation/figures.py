"""What the audit says of memorisation in a whole pool, each figure with a 95 % interval. Pure.

The share of authentic images (AuthPct: Alaa et al. 2022, arXiv 2102.08921) has no level that is
good everywhere: an image is not authentic when it is nearer to a training image than that is to any
other, which happens to many new images without any copying (to 2 / 3 of points on a line, 0.62 in a
plane, half in many dimensions: the chance that a point and its nearest one are each other's
nearest). So the same share of held-out real images stands beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dermaflux.audit.interval import missing, quantile, share
from dermaflux.audit.memorisation.copying_test import cells_of, copying_test

if TYPE_CHECKING:
    import pandas as pd

    from dermaflux.core.arrays import Array

_QUANTILES = {"quantile_05": 0.05, "median": 0.5}


def memorisation_figures(
    rules: pd.DataFrame, held_out: pd.DataFrame, points: tuple[Array, Array, Array]
) -> dict[str, Any]:
    """Of the pool, and of held-out real images as the reference.

    `rules` and `held_out` have the columns of `rejection`, M and H rows; `points` are the features
    (N, D) of the training images, (M, D) of the pool and (H, D) of the held-out images.
    """
    tested = copying_test(
        rules["distance"].to_numpy(),
        held_out["distance"].to_numpy(),
        cells_of(*points),
    )
    return {
        "reference": "train",
        "reference_images": len(points[0]),
        "pool": _of_images(rules),
        "held_out": _of_images(held_out),
        "copying_test": tested,
    }


def _of_images(rules: pd.DataFrame) -> dict[str, Any]:
    """Shares of images that are rejected, equal to a training image or authentic; the ratio."""
    flags = {
        "rejected": rules["rejected"],
        "equal": rules["distance"] == 0,
        "too near": rules["too near"],
        "copy": rules["copy"],
        "authentic": rules["authentic"],
    }
    return {
        "images": len(rules),
        **{name: _share(int(flag.sum()), len(rules)) for name, flag in flags.items()},
        "ratio": {
            name: _quantile(rules["ratio"].to_numpy(), part) for name, part in _QUANTILES.items()
        },
    }


def _share(count: int, total: int) -> dict[str, Any]:
    if not total:
        return missing("there are no images")
    return share(count, total)._asdict()


def _quantile(values: Array, part: float) -> dict[str, Any]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return missing("no ratio is finite")
    return quantile(finite, part)._asdict()
