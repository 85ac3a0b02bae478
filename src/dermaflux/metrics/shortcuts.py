"""What a classifier could score without looking at the lesion: by source, scale or facts of a file.

Pure functions on numpy arrays. Scores are learned from the real training images and judged on
others, as a classifier's are; an AUC of 0.5 says that a fact tells nothing of the class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dermaflux.core.arrays import Array
from dermaflux.metrics import binary
from dermaflux.metrics.multiclass import mauc

SHORTCUTS = {"source": "source", "scale": "scale", "file": "size and mean colour"}
"""Name in the figures -> in words."""


@dataclass(frozen=True)
class Facts:
    """What is known of N images without looking at the lesion."""

    labels: Array
    """(N,) class numbers."""
    source: Array
    """(N,) text."""
    scale: Array
    """(N,) text."""
    sampled: Array
    """(S,) positions of the images whose file was looked at."""
    files: Array
    """(S, F) numbers of each; NaN where one is not known."""


def category_scores(known: Array, labels: Array, asked: Array, classes: int) -> Array:
    """(M, K) share of each class among the `known` images (N,) of the category of each of `asked`.

    One image of the class shares of all is added to each category (additive smoothing), so a
    category that was never seen has these, and one seen once does not decide alone.
    """
    prior = np.bincount(labels, minlength=classes) / len(labels)
    names, index = np.unique(known, return_inverse=True)
    counts = np.zeros((len(names) + 1, classes))  # the last: categories never seen
    np.add.at(counts, (index, labels), 1)
    shares = (counts + prior) / (counts.sum(axis=1, keepdims=True) + 1)
    row = {name: number for number, name in enumerate(names)}
    return np.asarray(shares[[row.get(name, len(names)) for name in asked]])


def file_scores(known: Array, labels: Array, asked: Array, classes: int) -> Array:
    """(M, K) probabilities of a logistic regression on the facts `known` (N, F) for `asked` (M, F).

    Facts are standardised, and one that is not known is the mean of the others.
    """
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(
        SimpleImputer(keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(max_iter=1000),
    )
    scores = np.zeros((len(asked), classes))
    scores[:, np.unique(labels)] = model.fit(known, labels).predict_proba(asked)
    return scores


def auc(labels: Array, scores: Array) -> float:
    """ROC-AUC of scores (N, K); of more than two classes the macro mean of each against the rest.

    NaN where only one class occurs.
    """
    if len(np.unique(labels)) < 2:
        return float("nan")
    return binary.auc(labels, scores[:, 1]) if scores.shape[1] == 2 else mauc(labels, scores)


def aucs(known: Facts, asked: Facts, classes: int) -> dict[str, float]:
    """Name of `SHORTCUTS` -> AUC on the images `asked` of what was learned from those `known`."""
    found = {
        name: auc(asked.labels, category_scores(categories, known.labels, others, classes))
        for name, categories, others in (
            ("source", known.source, asked.source),
            ("scale", known.scale, asked.scale),
        )
    }
    of_known, of_asked = known.labels[known.sampled], asked.labels[asked.sampled]
    scores = file_scores(known.files, of_known, asked.files, classes)
    return {**found, "file": auc(of_asked, scores)}


def composition(categories: Array, labels: Array, classes: int) -> float:
    """AUC of the category alone among the images (N,) themselves, which a network may learn.

    Exactly 0.5 where every category holds both classes in equal numbers.
    """
    return auc(labels, category_scores(categories, labels, categories, classes))
