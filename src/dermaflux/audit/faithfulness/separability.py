"""Can synthetic images be told from real ones, and does what is learnt of one hold for the other?

A logistic regression on the audit's features tells synthetic images from real ones of their class:
an area of 0.5 means that it cannot (a classifier two-sample test: Lopez-Paz and Oquab 2017, arXiv
1610.06545). It is trained on four fifths of the photographs and scores the rest, five times over.
Two such regressions tell malignant from benign: one learns from synthetic images and is tested on
real ones (Esteban et al. 2017, arXiv 1706.02633), one the reverse. They are cheap stand-ins; what
the pipeline's own classifiers gain is measured by `evaluate`. Pure.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dermaflux.audit import area
from dermaflux.audit.fidelity.comparison import ENOUGH
from dermaflux.audit.interval import Interval, missing, too_few
from dermaflux.core.arrays import Array
from dermaflux.core.vocabulary import CLASSES

FOLDS = 5
MOST = 5000
"""Images of either side, at random, that the regressions see."""
Json = dict[str, Any]


class Part(NamedTuple):
    """Images of one kind; all parts have N rows."""

    points: Array
    """(N, D) features."""
    labels: Array
    """(N,) class of each; one that is not in `CLASSES` where none was asked for."""
    photographs: Array
    """(N,) numbers; images with the same one show the same photograph."""

    def where(self, chosen: Array) -> Part:
        """Those of the rows with these numbers, or where the mask is true."""
        return Part(self.points[chosen], self.labels[chosen], self.photographs[chosen])

    def of(self, label: str) -> Part:
        """One class; the whole where `label` is none."""
        return self.where(self.labels == label) if label in CLASSES else self


class Told(NamedTuple):
    """What a classifier of two kinds of images finds."""

    auc: Interval
    ours: Array
    """(N,) held-out scores, higher for what looks synthetic; 0 on average over both kinds, 1 their
    standard deviation."""
    theirs: Array
    """(M,) likewise of the real ones."""


def tell_apart(ours: Part, theirs: Part) -> Told:
    """Cross-validated over photographs; a fold has a fifth of those of each kind."""
    scores = np.zeros(len(ours.points)), np.zeros(len(theirs.points))
    folds = _folds(ours.photographs), _folds(theirs.photographs)
    parts = []
    for fold in range(FOLDS):
        tested = tuple(numbers == fold for numbers in folds)
        learnt = [part.points[~out] for part, out in zip((ours, theirs), tested, strict=True)]
        score = regression(learnt[0], learnt[1])
        found = [score(part.points[out]) for part, out in zip((ours, theirs), tested, strict=True)]
        deviation = float(np.concatenate(found).std()) or 1.0
        middle = float(np.mean([each.mean() for each in found]))
        for kind in range(2):
            scores[kind][tested[kind]] = (found[kind] - middle) / deviation
        groups = [part.photographs[out] for part, out in zip((ours, theirs), tested, strict=True)]
        parts.append(area.Scored(found[0], found[1], groups[0], groups[1]))
    return Told(area.cross_validated(parts), *scores)


class Regression(NamedTuple):
    """Logistic regression on standardised features."""

    weights: Array
    """(D,) of the features as they are."""
    bias: float

    def __call__(self, points: Array) -> Array:
        """(N, D) -> (N,) log odds."""
        scores: Array = points @ self.weights + self.bias
        return scores


def regression(positive: Array, negative: Array) -> Regression:
    """Fitted to features (M, D) and (N, D), either side weighing the same.

    The penalty is that of a normal prior whose log odds have the variance 1, whatever D.
    """
    from sklearn.linear_model import LogisticRegression

    points = np.concatenate([positive, negative]).astype(np.float32)
    middle, deviation = points.mean(0), points.std(0)
    deviation[deviation < 1e-6] = np.inf  # a constant feature tells nothing
    labels = np.arange(len(points)) < len(positive)
    strength = 1 / points.shape[1]
    fitted = LogisticRegression(C=strength, class_weight="balanced", max_iter=300, tol=1e-2)
    fitted.fit((points - middle) / deviation, labels)
    weights = fitted.coef_[0].astype(np.float64) / deviation
    return Regression(weights, float(fitted.intercept_[0] - weights @ middle))


def _folds(photographs: Array) -> Array:
    """(N,) number of the fold of each image; images of one photograph share theirs."""
    number = np.unique(photographs, return_inverse=True)[1]
    count = int(number.max(initial=-1)) + 1
    order = np.random.Generator(np.random.PCG64(0)).permutation(count)
    folds: Array = (order % FOLDS)[number]
    return folds


def report(pool: Part, training: Part, test: Part) -> tuple[Json, dict[str, Told]]:
    """What `reports/audit.json` says, and the scores of the pool against training per class.

    `reference` -> class -> AUC with both numbers of images, and `auc`, the mean over classes, as
    pool and corpus differ in class balance. `floor`: test images in place of synthetic ones,
    against training images: what a difference between two splits of real images looks like.
    """
    names = [name for name in CLASSES if (pool.labels == name).any()] or [str(pool.labels[0])]
    against: Json = {}
    told: dict[str, Told] = {}
    kinds = {"train": (pool, training), "test": (pool, test), "floor": (test, training)}
    for kind, (ours, theirs) in kinds.items():
        rows: Json = {}
        for name in names:
            sides = ours.of(name), theirs.of(name)
            counts = len(sides[0].points), len(sides[1].points)
            rows[name] = {"images": counts[0], "reference_images": counts[1]}
            if min(counts) < ENOUGH:
                rows[name] |= missing(too_few(*counts, ENOUGH))
                continue
            photographs = [len(np.unique(side.photographs)) for side in sides]
            if min(photographs) < FOLDS:
                rows[name] |= missing(
                    f"needs {FOLDS} different images on either side, and there are "
                    f"{photographs[0]:,} and {photographs[1]:,}"
                )
                continue
            found = tell_apart(*sides)
            rows[name] |= found.auc._asdict()
            if kind == "train":
                told[name] = found
        against[kind] = {"auc": _mean_of_classes(rows), "classes": rows}
    return {**against, "transfer": transfer(pool, training, test)}, told


def _mean_of_classes(rows: Json) -> Json:
    given = [row for row in rows.values() if row["value"] is not None]
    if not given:
        return missing("; ".join(dict.fromkeys(row["reason"] for row in rows.values())))
    # Classes share no image, so their errors are independent.
    half = float(np.sqrt(sum((row["high"] - row["low"]) ** 2 for row in given))) / 2 / len(given)
    value = float(np.mean([row["value"] for row in given]))
    return Interval(value, max(0.0, value - half), min(1.0, value + half))._asdict()


def transfer(pool: Part, training: Part, test: Part) -> Json:
    """AUC of malignant against benign of three regressions, with both numbers of images.

    `real_real` learns from training images and is tested on the test split, `synthetic_real` learns
    from the pool; `real_synthetic` learns from training images and is tested on the pool.
    """
    rows = {
        "real_real": (training, test),
        "synthetic_real": (pool, test),
        "real_synthetic": (training, pool),
    }
    return {name: _transferred(*sides) for name, sides in rows.items()}


def _transferred(learnt: Part, tested: Part) -> Json:
    sides = [{name: part.of(name) for name in CLASSES} for part in (learnt, tested)]
    counts = [[len(side[name].points) for name in CLASSES] for side in sides]
    about = {"images": sum(counts[0]), "tested_images": sum(counts[1])}
    if min(map(min, counts)) < ENOUGH:
        said = " and ".join(" and ".join(f"{count:,}" for count in each) for each in counts)
        return about | missing(
            f"needs {ENOUGH} benign and as many malignant images to learn from and to test on, "
            f"and there are {said}"
        )
    benign, malignant = (sides[0][name].points for name in CLASSES)
    score = regression(malignant, benign)
    low, high = (sides[1][name] for name in CLASSES)
    scored = area.Scored(score(high.points), score(low.points), high.photographs, low.photographs)
    return about | area.mean([scored])._asdict()
