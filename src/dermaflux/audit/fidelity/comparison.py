"""How near a pool is to real images: every figure of fidelity and diversity, of the pool and parts.

Each row compares synthetic images with real ones of one split, `train` or `test`: all of them, one
class, one source or one skin tone. It names the images on both sides, gives each figure with a 95 %
interval or the reason why it is not given, and beside them the floor: the same figures of real
images in place of the synthetic ones, as many as half of the split has, against the rest of it.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dermaflux.audit.fidelity import manifold, mmd
from dermaflux.audit.fidelity.frechet import frechet_distance, frechet_distance_of_products
from dermaflux.audit.fidelity.products import Products, products_of
from dermaflux.audit.interval import around, missing, share, too_few
from dermaflux.core.arrays import Array
from dermaflux.core.vocabulary import CLASSES, SKIN_TONE_PAIRS

if TYPE_CHECKING:
    import pandas as pd

MINIMUM = 4
"""Images on either side for KID, for two halves of two."""
ENOUGH = 100
"""Images on either side for every other figure: with fewer they say more of the number of images
than of the images."""
NEAREST_OF = 5000
"""Images of either side, at random, whose mutual distances are measured; a matrix of them takes
200 MB."""
FIGURES = ("fid", "kid", "inception_score", *manifold.NAMES)
GROUPS = ("source", "skin_tone")
NAMED = ("reference", "group", "name")
"""What says which comparison a row is."""
Json = dict[str, Any]


class Images(NamedTuple):
    """Images of one kind; all parts have N rows."""

    rows: pd.DataFrame
    """Columns label, source, skin_tone, and rejected (bool) of synthetic ones."""
    points: Array
    """(N, D) features."""
    logits: Array | None
    """(N, C) class scores, where the trunk has classes."""

    def where(self, chosen: Array) -> Images:
        """Those of the rows with these numbers."""
        logits = None if self.logits is None else self.logits[chosen]
        return Images(self.rows.iloc[chosen], self.points[chosen], logits)


class Pair(NamedTuple):
    """Synthetic images, or real ones in their place, and the real ones that they are held against.

    Rows of a pair share its products, which cost more than any figure.
    """

    ours: Images
    theirs: Images
    products: Products | None
    """Of their features; None where there are more images than `NEAREST_OF` on a side."""

    def where(self, ours: Array, theirs: Array) -> Pair:
        """A part of either side, by numbers of rows."""
        products = self.products and self.products.where(ours, theirs)
        return Pair(self.ours.where(ours), self.theirs.where(theirs), products)

    def floor(self) -> Pair:
        """Real images in place of synthetic ones, at most as many, against the rest of them."""
        total = len(self.theirs.rows)
        order = np.random.Generator(np.random.PCG64(0)).permutation(total)
        size = min(len(self.ours.rows), total // 2)
        part, rest = np.sort(order[:size]), np.sort(order[size:])
        products = self.products and self.products.of_theirs(part, rest)
        return Pair(self.theirs.where(part), self.theirs.where(rest), products)


def pair(ours: Images, theirs: Images) -> Pair:
    """Both sides with the products of their features."""
    few = max(len(ours.rows), len(theirs.rows)) <= NEAREST_OF
    return Pair(ours, theirs, products_of(ours.points, theirs.points) if few else None)


def rows(pairs: dict[str, Pair]) -> Iterator[Json]:
    """One per reference split and group; the first of each split, group `all`, is the whole pool.

    A pool is compared with the real images of the classes that it was asked for, and with all where
    it was asked for none.
    """
    for reference, (pool, real, products) in pairs.items():
        labels = set(pool.rows["label"]) & set(CLASSES)
        everything = np.arange(len(pool.rows))
        asked = real.rows["label"].isin(labels or CLASSES).to_numpy()
        groups: list[tuple[str, str, Array, Array]] = []
        groups.append(("all", "all", everything, np.flatnonzero(asked)))
        for label in CLASSES if labels else ():
            ours, theirs = (_equal(each, "label", label) for each in (pool, real))
            groups.append(("label", label, ours, theirs))
        for column in GROUPS:
            # The pool says no source of its own, and seldom a skin tone.
            stated = column == "skin_tone" and pool.rows[column].notna().any()
            sides = [each.rows[column] for each in (pool, real)]
            if stated:  # often as pairs of types, where real images may have one
                sides = [each.map(lambda tone: SKIN_TONE_PAIRS.get(tone, tone)) for each in sides]
            for value in sorted(sides[1][asked].dropna().unique()):
                ours = np.flatnonzero((sides[0] == value).to_numpy(bool)) if stated else everything
                theirs = np.flatnonzero((sides[1] == value).to_numpy(bool) & asked)
                groups.append((column, str(value), ours, theirs))
        for group, name, ours, theirs in groups:
            part = Pair(pool, real, products).where(ours, theirs)
            yield {"reference": reference, "group": group, "name": name, **compare(part)}


def _equal(images: Images, column: str, value: object) -> Array:
    return np.flatnonzero((images.rows[column] == value).to_numpy(bool))


def compare(part: Pair) -> Json:
    """Every figure, the share of memorised images, both numbers of images, and the floor."""
    floor = part.floor()
    return {
        **_counts(part),
        "memorised": _memorised(part.ours),
        **_figures(part),
        "floor": {**_counts(floor), **_figures(floor)},
    }


def _counts(part: Pair) -> dict[str, int]:
    return {"images": len(part.ours.rows), "reference_images": len(part.theirs.rows)}


def _memorised(synthetic: Images) -> Json:
    if not len(synthetic.rows):
        return missing("there are no synthetic images")
    count = int(synthetic.rows["rejected"].sum())
    return {"count": count, **share(count, len(synthetic.rows))._asdict()}


def _figures(part: Pair) -> Json:
    """The figures in `FIGURES`, each with value, low and high; or None and the reason."""
    counts = len(part.ours.rows), len(part.theirs.rows)
    found = {name: missing(too_few(*counts, ENOUGH)) for name in FIGURES}
    found["kid"] = missing(too_few(*counts, MINIMUM))
    if min(counts) >= MINIMUM:
        estimate = _kid(part)[0]
        found["kid"] = around(estimate.mean, float(estimate.error or 0))._asdict()
    if min(counts) >= ENOUGH:
        ours, theirs = part.ours.points, part.theirs.points
        # Where features are fewer than images, covariances are the smaller matrices.
        if part.products is not None and max(counts) <= ours.shape[1]:
            distance = frechet_distance_of_products(part.products)
        else:
            distance = frechet_distance(ours, theirs)
        products = part.products or products_of(_sample(ours), _sample(theirs))
        found["fid"] = distance._asdict()
        of_manifolds = manifold.manifold_figures(*products.squared_distances())
        found |= {name: figure._asdict() for name, figure in of_manifolds.items()}
    if part.ours.logits is None:
        found["inception_score"] = missing("the trunk gives no class scores")
    elif counts[0] >= ENOUGH:
        found["inception_score"] = mmd.inception_score(part.ours.logits)._asdict()
    return found


def _kid(part: Pair) -> tuple[mmd.Estimate, mmd.Estimate]:
    if part.products is None:
        return mmd.kid(part.ours.points, part.theirs.points, seed=0)
    return mmd.kid_of_products(part.products, part.ours.points.shape[1], seed=0)


def _sample(points: Array) -> Array:
    if len(points) <= NEAREST_OF:
        return points
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(points))
    return points[np.sort(order[:NEAREST_OF])]


def kid_of_classes(whole: Pair) -> Json:
    """KID per class against the training split, and its mean over classes with a 95 % interval.

    A mean over classes, as pool and corpus differ in class balance. Images sampled without a class
    are compared with all training images. Classes with fewer than `MINIMUM` synthetic images have
    the reason in place of a figure and are not in the mean, which is None where there are no other.
    """
    classes: Json = {}
    for name in sorted(whole.ours.rows["label"].unique()):
        everything = np.arange(len(whole.theirs.rows))
        theirs = _equal(whole.theirs, "label", name) if name in CLASSES else everything
        part = whole.where(_equal(whole.ours, "label", name), theirs)
        counts = len(part.ours.rows), len(theirs)
        if min(counts) < MINIMUM:
            classes[name] = {"reason": too_few(*counts, MINIMUM)}
            continue
        kid, floor = _kid(part)
        classes[name] = {
            "kid": kid.mean,
            "kid_std": kid.std,
            "kid_error": kid.error,
            "kid_floor": floor.mean,
            "kid_floor_std": floor.std,
            "subset_size": kid.subset_size,
        }
    measured = [part for part in classes.values() if "kid" in part]
    if not measured:
        return {"kid": None, "kid_low": None, "kid_high": None, "kid_floor": None,
                "classes": classes}  # fmt: skip
    # Classes share no image, so their errors are independent.
    error = float(np.sqrt(sum(part["kid_error"] ** 2 for part in measured))) / len(measured)
    mean = around(float(np.mean([part["kid"] for part in measured])), error)
    return {
        "kid": mean.value,
        "kid_low": mean.low,
        "kid_high": mean.high,
        "kid_floor": float(np.mean([part["kid_floor"] for part in measured])),
        "classes": classes,
    }
