"""What synthetic images show of the sources that trained the generator: a class, or its tiles?

The source of the nearest training image is a classifier of sources (1-nearest neighbour in the
audit's features); held-out real images, whose sources are known, say how often it is right. Where
sources differ in their classes, a generator may learn the look of a source in place of the class:
then the source that an image looks like tells the class that was asked for. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dermaflux.audit import interval
from dermaflux.core.vocabulary import CLASSES

if TYPE_CHECKING:
    from dermaflux.core.arrays import Array

_RESAMPLES = 1000
_KEYS = ["scale", "source"]


def report(
    training: pd.DataFrame, nearest: Array, labels: pd.Series[str], held_out: pd.DataFrame
) -> dict[str, Any]:
    """Of the pool and, as a reference, of held-out real images.

    training: columns source, scale, label; held_out: source and label. nearest: (N + H,) rows of
    `training`, of the N images of the pool, whose asked classes are `labels`, and of H held-out
    ones. `accuracy` is the share of held-out images whose source is predicted, `majority_accuracy`
    that of the most frequent source among them. The AUCs are of malignant against benign by source
    and scale alone, whose score is their share of malignant training images: predicted ones of the
    pool (`auc`) and of held-out images, true ones of the training images.
    """
    pool, real = nearest[: len(labels)], nearest[len(labels) :]
    share = _malignant_share(training)
    counts = held_out["source"].value_counts()
    named = training["source"].to_numpy()[real] == held_out["source"].to_numpy()
    return {
        "accuracy": _share(int(named.sum()), len(named)),
        "majority_accuracy": float(counts.iloc[0] / counts.sum()) if len(counts) else None,
        "sources": int(training["source"].nunique()),
        "auc": _auc(share[pool], labels.to_numpy()),
        "held_out_auc": _auc(share[real], held_out["label"].to_numpy()),
        "training_auc": _area(*_by_class(share, training["label"].to_numpy())),
    }


def nearest_sources(
    training: pd.DataFrame, nearest: Array, labels: pd.Series[str]
) -> list[dict[str, Any]]:
    """Of each scale and source: training images, and synthetic ones nearest to one, per class.

    Where one source alone trained at a scale, images sampled at that scale may have its look.
    """
    rows = training[_KEYS].reset_index(drop=True)
    classes = sorted(labels.unique())
    for name in classes:
        chosen = nearest[(labels == name).to_numpy()]
        rows[name] = np.bincount(chosen, minlength=len(training))
    totals = rows.groupby(_KEYS, dropna=False)[classes].sum()
    sizes = rows.groupby(_KEYS, dropna=False).size()
    return [
        {
            "scale": None if pd.isna(scale) else int(scale),
            "source": str(source),
            "training": int(sizes.loc[[(scale, source)]].iloc[0]),
            "nearest": int(total.sum()),
            "per_class": {name: int(total[name]) for name in classes},
        }
        for (scale, source), total in totals.iterrows()
    ]


def _malignant_share(training: pd.DataFrame) -> Array:
    """(T,) share of malignant images among those of the same source and scale."""
    malignant = (training["label"] == CLASSES[1]).astype(float)
    keys = [training[name].astype("string").fillna("") for name in _KEYS]
    shares: Array = malignant.groupby(keys).transform("mean").to_numpy()
    return shares


def _share(count: int, total: int) -> dict[str, float] | None:
    return interval.share(count, total)._asdict() if total else None


def _by_class(scores: Array, labels: Array) -> list[Array]:
    return [scores[labels == name] for name in CLASSES]


def _area(benign: Array, malignant: Array) -> float:
    """ROC-AUC as Mann and Whitney's U over the number of pairs; ties count half."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([benign, malignant]))[len(benign) :]
    return float((ranks.mean() - (len(malignant) + 1) / 2) / len(benign))


def _auc(scores: Array, labels: Array) -> dict[str, float] | None:
    """ROC-AUC with a percentile interval over resampled images; None without both classes."""
    of_class = _by_class(scores, labels)
    if not all(map(len, of_class)):
        return None
    draws = np.random.default_rng(0)
    found = [
        _area(*(values[draws.integers(0, len(values), len(values))] for values in of_class))
        for _ in range(_RESAMPLES)
    ]
    low, high = (float(limit) for limit in np.quantile(found, [0.025, 0.975]))
    return {"value": _area(*of_class), "low": low, "high": high}
