"""Which images are too near to a training image or show the same photograph as one.

Reads table folders; writes nothing. `distance_ratio` measures in the features of the trunk and in
small pixels, `copies` in fine detail; two thresholds decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from dermaflux.audit import features, trunks
from dermaflux.audit.interval import share
from dermaflux.audit.memorisation import copies, distance_ratio
from dermaflux.audit.memorisation.neighbours import orientations
from dermaflux.core.arrays import Array

if TYPE_CHECKING:
    from dermaflux.audit.features import Turned
    from dermaflux.audit.image_sets import ImageSet
    from dermaflux.audit.memorisation.distance_ratio import Nearest
    from dermaflux.audit.trunks import Trunk
    from dermaflux.params import Audit

RULES = ("too near", "copy")
REASONS = np.array(["", "too near", "copy", "copy and too near"], dtype=object)
COLUMNS = ("image_id", "nearest_id", "distance", "ratio", "nearest_in_pixels_id",
           "ratio_in_pixels", "original_id", "correlation", "reason", "rejected", "authentic",
           *RULES)  # fmt: skip


class Judged(NamedTuple):
    """Of M images that were compared with N training images."""

    near: Array
    """Rows (M, k) of the training images nearest to each in the features of the trunk."""
    rules: pd.DataFrame
    """(M, `COLUMNS`): what is nearest, what it is most like, and which rule rejects it."""


class Space(NamedTuple):
    """In which images are compared."""

    trunk: Trunk
    points: Array
    """(N, D) of the training images."""
    queries: Array | Turned
    """(M, 8, D) of the others, under the eight symmetries."""


def judge(
    training: ImageSet, compared: Sequence[ImageSet], space: Space, settings: Audit
) -> Judged:
    """Compare the images `compared`, one after another, with every training image.

    Where the trunk is a network, which may not see what a copy keeps, an image that is too near in
    pixels alone is too near as well.
    """
    spaces = [space] if space.trunk.name == "pixels" else [space, _pixels(training, compared)]
    thumbnails, *others = (
        features.thumbnails(each.folder, list(each.rows["image_id"]), each.split)
        for each in (training, *compared)
    )

    def same(rows: Array, others: Array, turns: Array) -> Array:
        score = copies.correlations(thumbnails, thumbnails[rows], others, turns)
        return score >= settings.duplicate_correlation

    found = [_nearest(each, training, same) for each in spaces]
    original, correlation = copies.most_similar(
        thumbnails,
        np.concatenate(others),
        np.concatenate([each.rows for each in found], axis=1),
        np.concatenate(
            [
                orientations(each.queries, each.points, of_space.rows)
                for each, of_space in zip(spaces, found, strict=True)
            ],
            axis=1,
        ),
    )
    first, in_pixels = found[0], found[-1]
    too_near = np.minimum(first.ratio, in_pixels.ratio) < settings.memorisation_ratio
    copied = correlation >= settings.duplicate_correlation
    ids = training.rows["image_id"].to_numpy()
    columns = (
        np.concatenate([each.rows["image_id"] for each in compared]),
        ids[first.rows[:, 0]],
        first.distance,
        first.ratio,
        ids[in_pixels.rows[:, 0]],
        in_pixels.ratio,
        np.where(original >= 0, ids[original], None),
        correlation,
        REASONS[too_near + 2 * copied],
        too_near | copied,
        first.authentic,
        too_near,
        copied,
    )
    return Judged(first.rows, pd.DataFrame(dict(zip(COLUMNS, columns, strict=True))))


def _pixels(training: ImageSet, compared: Sequence[ImageSet]) -> Space:
    trunk = trunks.pixels()
    points = features.extract(*training, trunk).points
    return Space(trunk, points, features.under_symmetries(compared, trunk)[1])


def _nearest(space: Space, training: ImageSet, same: distance_ratio.Same) -> Nearest:
    def symmetric(rows: Array) -> Array | Turned:
        if space.trunk.turn is not None:
            return features.Turned(space.points[rows], space.trunk.turn)
        chosen = training._replace(rows=training.rows.iloc[rows])
        return features.under_symmetries([chosen], space.trunk)[1]

    photographs = photographs_of(training.rows)
    return distance_ratio.nearest(space.queries, space.points, symmetric, photographs, same)


def held_out_report(rules: pd.DataFrame) -> dict[str, Any]:
    """How many real images that cannot be copies each rule flags, and both together.

    Intervals are exact (Clopper and Pearson 1934), at 95 %. `ingest` has put images that the leak
    guard joins on one side of the split, so that the rule `copy` finds fewer here than among
    photographs of which nobody knows.
    """
    found = {**{name: rules[name] for name in RULES}, "either": rules["rejected"]}
    return {
        "images": len(rules),
        "flagged_count": int(rules["rejected"].sum()),
        "ratio": quantiles(rules["ratio"].to_numpy()),
        "rules": {name: _rate(int(flags.sum()), len(rules)) for name, flags in found.items()},
    }


def _rate(count: int, images: int) -> dict[str, Any]:
    if not images:
        return {"flagged_count": 0, "rate": None, "low": None, "high": None}
    rate, low, high = share(count, images)
    return {"flagged_count": count, "rate": rate, "low": low, "high": high}


def quantiles(ratio: Array) -> dict[str, float]:
    """Minimum, 5 % quantile and median of the finite ratios."""
    finite = ratio[np.isfinite(ratio)]
    if not len(finite):
        return {}
    minimum, low, median = (float(value) for value in np.quantile(finite, [0, 0.05, 0.5]))
    return {"minimum": minimum, "quantile_05": low, "median": median}


def photographs_of(training: pd.DataFrame) -> Array:
    """(N,) numbers of photographs: `ingest` gave copies of one the same duplicate group."""
    groups = training["duplicate_group"]
    alone = pd.Series([f"image {image_id}" for image_id in training["image_id"]])
    codes: Array = groups.where(groups.notna(), alone).factorize()[0]
    return codes
