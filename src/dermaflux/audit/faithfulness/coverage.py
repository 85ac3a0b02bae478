"""Which skin tones, sources and diagnoses the pool covers: wanted, asked for, and shown. Pure.

`wanted` are the shares of `synthesize.wanted`; `asked` what the prompts that were drawn describe,
which rows of the pool say; `nearest` the value of the nearest training image, a 1-nearest-neighbour
classifier in the audit's features. How often that classifier names the true value of real
images that are in no training set says how far it can be trusted. Skin tones are compared in pairs
of Fitzpatrick types, I-II, III-IV and V-VI, since measured ones come in pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaflux.audit.interval import Interval, missing, share
from dermaflux.core.arrays import Array
from dermaflux.core.vocabulary import SKIN_TONE_PAIRS

if TYPE_CHECKING:
    import pandas as pd

_RESAMPLES = 1000
ATTRIBUTES = ("skin_tone", "source", "diagnosis")
Json = dict[str, Any]
Wanted = Mapping[Any, Mapping[str, float]] | None
"""Attribute -> value -> share of the pool, as `synthesize.wanted`."""


def report(
    pool: pd.DataFrame,
    training: pd.DataFrame,
    nearest: Array,
    held_out: pd.DataFrame,
    nearest_held_out: Array,
    wanted: Wanted = None,
) -> Json:
    """Of each attribute: `values`, `accuracy`, `hit` and `distance`.

    Rows of the pool (N), of training images and of held-out real ones (H), with the columns of
    `ATTRIBUTES`; `nearest` (N,) and `nearest_held_out` (H,) are rows of `training`.
    """
    return {
        name: _of_attribute(
            name.replace("_", " "),
            _texts(pool, name) if name != "source" else np.full(len(pool), None, object),
            _texts(training, name),
            nearest,
            _texts(held_out, name),
            nearest_held_out,
            _wanted(wanted, name),
        )
        for name in ATTRIBUTES
    }


def _texts(rows: pd.DataFrame, name: str) -> Array:
    values: Array = rows[name].astype(object).where(rows[name].notna(), None).to_numpy()
    if name == "skin_tone":
        values = np.array([value and SKIN_TONE_PAIRS.get(value, value) for value in values], object)
    return values


def _wanted(wanted: Wanted, name: str) -> dict[str, float] | None:
    if wanted is None or name not in wanted:
        return None
    shares: dict[str, float] = {}
    total = sum(wanted[name].values())
    for value, part in wanted[name].items():
        key = SKIN_TONE_PAIRS.get(value, value) if name == "skin_tone" else value
        shares[key] = shares.get(key, 0.0) + part / total
    return shares


def _of_attribute(
    words: str,
    asked: Array,
    training: Array,
    nearest: Array,
    held_out: Array,
    nearest_held_out: Array,
    wanted: Mapping[str, float] | None,
) -> Json:
    """`values`: count and share of each among training images, asked for and nearest, and wanted.

    Shares are of the images of which the value is known. `accuracy`: held-out images whose nearest
    training image has their value. `hit`: images of the pool whose nearest training image has the
    value asked for; `chance` is its expectation where nothing is controlled. `distance`: total
    variation, the share of images that would have to have another value, of `asked` and `nearest`
    to `wanted`, and of `nearest` to `asked` and to training images.
    """
    shown = training[nearest] if len(training) else np.full(len(nearest), None, object)
    of_held_out = training[nearest_held_out] if len(training) else held_out[:0]
    columns = {"training": training, "asked": asked, "nearest": shown}
    present = {value for each in columns.values() for value in each if value is not None}
    names = sorted({*(wanted or {}), *present})
    totals = {column: _known(each) for column, each in columns.items()}
    values = []
    for name in names:
        row: Json = {"value": name, "wanted": None if wanted is None else wanted.get(name, 0.0)}
        for column, each in columns.items():
            row[column] = _share(int((each == name).sum()), totals[column])
        values.append(row)
    if not totals["training"]:
        return {"values": [], **missing(f"no training image has a {words}")}
    of_pool = zip(asked, shown, strict=True)
    both = np.array([a is not None and b is not None for a, b in of_pool], bool)
    hits = int((asked == shown)[both].sum()) if both.any() else 0
    pairs = zip(held_out, of_held_out, strict=True)
    known = np.array([a is not None and b is not None for a, b in pairs], bool)
    right = int((held_out == of_held_out)[known].sum()) if known.any() else 0
    distances: Json = {"nearest_to_training": _distances(shown, _shares(training))}
    if totals["asked"]:
        distances["nearest_to_asked"] = _distances(shown, _shares(asked))
    if wanted is not None:
        distances["asked_to_wanted"] = distance(_shares(asked), wanted)
        distances["nearest_to_wanted"] = _distances(shown, wanted)
    return {
        "values": values,
        "hit": _share(hits, int(both.sum())) | {"chance": _chance(asked, shown, both)},
        "accuracy": _share(right, int(known.sum())),
        "distance": distances,
    }


def _known(values: Array) -> int:
    return sum(value is not None for value in values)


def _share(count: int, total: int) -> Json:
    if not total:
        return {"count": count, "of": 0, **missing("no image has a value")}
    return {"count": count, "of": total, **share(count, total)._asdict()}


def _shares(values: Array) -> dict[str, float]:
    names, counts = np.unique([value for value in values if value is not None], return_counts=True)
    total = counts.sum()
    return {str(name): int(count) / int(total) for name, count in zip(names, counts, strict=True)}


def _distances(shown: Array, shares: Mapping[str, float]) -> Json:
    """With the basic bootstrap interval over images of the pool; limits are within [0, 1]."""
    found = _shares(shown)
    if not found:
        return missing("no nearest training image has a value")
    names = sorted({*found, *shares})
    ours, theirs = (np.array([each.get(name, 0.0) for name in names]) for each in (found, shares))
    total = _known(shown)
    draws = np.random.default_rng(0).multinomial(total, ours / ours.sum(), _RESAMPLES) / total
    low, high = np.quantile(np.abs(draws - theirs).sum(axis=1) / 2, [0.025, 0.975])
    value = distance(found, shares)
    limits = (max(0.0, 2 * value - float(high)), min(1.0, 2 * value - float(low)))
    return Interval(value, limits[0], max(value, limits[1]))._asdict()


def distance(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    """Total variation of two distributions, 0 equal to 1 disjoint."""
    return sum(abs(ours.get(n, 0.0) - theirs.get(n, 0.0)) for n in {*ours, *theirs}) / 2


def _chance(asked: Array, shown: Array, both: Array) -> float | None:
    """Probability that two values drawn apart, one asked for and one shown, agree."""
    if not both.any():
        return None
    left, right = _shares(asked[both]), _shares(shown[both])
    return sum(share * right.get(name, 0.0) for name, share in left.items())
