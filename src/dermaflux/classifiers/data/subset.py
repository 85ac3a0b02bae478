"""Which images a classifier trains on: the controlled real:synthetic mixtures of paper section 3.2.

Pure functions on the metadata of two tables: the corpus split `train` and the synthetic pool. The
draw goes in the order of a hash of (seed, image_id), never of positions in a file, so a larger
sample contains the smaller one and added data moves no other image.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dermaflux.core.arrays import Array
from dermaflux.core.hashing import rank
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def column(classes: Iterable[str]) -> str:
    """The column of the table that holds these classes: `label` of `CLASSES`, else `diagnosis`."""
    return "label" if tuple(classes) == CLASSES else "diagnosis"


def counts(rows: pd.DataFrame, classes: Iterable[str]) -> dict[str, int]:
    """Images of each class, in the order of `classes`."""
    numbers = rows[column(classes)].value_counts()
    return {name: int(numbers.get(name, 0)) for name in classes}


def balanced(count: int) -> dict[str, int]:
    """`count` // 2 images of each class."""
    return {name: count // 2 for name in CLASSES}


def fraction(available: Mapping[str, int], share: float) -> dict[str, int]:
    """`share` of every class, halves rounded up, at least one image each.

    Raises `InputError` when a class has none.
    """
    for name, count in available.items():
        if count == 0:
            raise InputError(
                f"the training split holds 0 {name} images, of which real_fraction {share:g} takes "
                "at least one; add a dataset with that class"
            )
    return {name: max(1, int(share * count + 0.5)) for name, count in available.items()}


def proportional(total: int, real: Mapping[str, int]) -> dict[str, int]:
    """`total` images shared out like the real ones, rounded down; evenly where there are none."""
    like = dict(real) if any(real.values()) else dict.fromkeys(real, 1)
    return {name: total * count // sum(like.values()) for name, count in like.items()}


def ordered(rows: pd.DataFrame, classes: Iterable[str], seed: int) -> dict[str, list[str]]:
    """Class -> its image_ids in order of sha256(seed, image_id).

    `rows` has columns image_id and `column(classes)`.
    """
    names = tuple(classes)
    ids = {name: rows.loc[rows[column(names)] == name, "image_id"] for name in names}
    return {name: sorted(ids[name], key=lambda image_id: rank(seed, image_id)) for name in names}


def first(order: Mapping[str, Sequence[str]], wanted: Mapping[str, int]) -> list[str]:
    """The `wanted` first image_ids of each class, class after class."""
    return [image_id for name, count in wanted.items() for image_id in order[name][:count]]


def draw(rows: pd.DataFrame, wanted: Mapping[str, int], seed: int) -> list[str]:
    """That many image_ids of each class, in order of sha256(seed, image_id), class after class.

    `rows` has columns image_id and `column(wanted)` and at least that many images of each class.
    """
    return first(ordered(rows, wanted, seed), wanted)


def firsts(drawn: Mapping[str, int], wanted: Mapping[str, int]) -> Array:
    """(M,) int64 positions of the `wanted` first images of each class in what `first` returned.

    So a smaller sample is found in a larger one of the same order.
    """
    starts = np.cumsum([0, *drawn.values()])
    parts = [start + np.arange(wanted[name]) for start, name in zip(starts, drawn, strict=False)]
    return np.concatenate(parts)


def check_real(available: Mapping[str, int], count: int) -> None:
    """Raise `InputError` when a class of the training split is too small for n_real `count`."""
    images, name = min((available.get(name, 0), name) for name in CLASSES)
    if images == 0 and count:
        raise InputError(
            f"the training split holds 0 {name} images but n_real {count} needs {count // 2}; "
            "add a dataset with that class"
        )
    if images < count // 2:
        raise InputError(
            f"n_real {count} needs {count // 2} {name} images but the training split holds "
            f"{images}; lower n_real to {2 * images} or add data"
        )


def check_pool(wanted: int, images: int) -> None:
    """Raise `InputError` when a pool of `images` cannot give the `wanted` synthetic images."""
    if wanted > images:
        raise InputError(
            f"the mixture needs {wanted:,} synthetic images but synthesize.images is {images:,}; "
            "lower ratio or real_fraction, or raise synthesize.images"
        )


def check_pool_classes(wanted: Mapping[str, int], shares: Mapping[str, float], images: int) -> None:
    """Raise `InputError` when a pool of `images` with these shares of the classes is too small."""
    for name, count in wanted.items():
        expected = shares[name] * images
        if count > expected + 1:  # shares that are no whole numbers of images
            raise InputError(
                f"the mixture needs {count:,} synthetic {name} images but of {images:,} planned "
                f"ones about {expected:,.0f} show that class; lower ratio, raise synthesize.images,"
                " or change synthesize.conditions and synthesize.proportions"
            )


def draw_synthetic(
    rows: pd.DataFrame, rejected: Collection[str], wanted: Mapping[str, int], seed: int
) -> list[str]:
    """image_ids of a sample of the synthetic pool without the images the audit rejected.

    Raises `InputError` when a class of the rest is too small.
    """
    accepted = rows[~rows["image_id"].isin(list(rejected))]
    pool, left = counts(rows, wanted), counts(accepted, wanted)
    for name, count in wanted.items():
        if left[name] < count:
            raise InputError(
                f"the mixture needs {count} synthetic {name} images but {left[name]} are left of "
                f"{pool[name]} after the audit rejected {pool[name] - left[name]}; lower ratio or "
                "raise synthesize.images"
            )
    return draw(accepted, wanted, seed)
