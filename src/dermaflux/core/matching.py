"""Pairs of a benign and a malignant image that agree in source and scale: a `draw` that is matched.

Pure functions on metadata. What a network can tell from where an image comes is then of no use to
it, since benign and malignant images come from the same places in the same numbers. A group of
images that agree gives as many pairs as its rarer class has images; the others have no partner and
are not drawn.

Pairs are in one order, of which every draw takes the first ones: the groups take turns as
Sainte-Laguë's divisor method hands out seats, so that at every size each group has its share of all
pairs, to within rounding, and a larger draw contains the smaller one (the method is house-monotone:
Balinski and Young, Fair Representation, 1982). Inside a group both classes are in the order of
sha256(seed, image_id), as the pooled draw has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dermaflux.core.hashing import rank
from dermaflux.core.vocabulary import CLASSES

if TYPE_CHECKING:
    import pandas as pd

_UNKNOWN = "not given"


@dataclass(frozen=True)
class Pairs:
    """What of a split can be drawn alike of both classes, and what cannot."""

    image_ids: dict[str, list[str]]
    """Class -> its image of each pair, pairs in the same order for both."""
    by: tuple[str, ...]
    """The columns in which the images of a pair agree."""
    groups: tuple[int, int]
    """Groups with a pair, and all groups."""
    unpaired: dict[str, dict[str, int]]
    """Class -> group -> images without a partner, most first."""

    def __len__(self) -> int:
        return len(self.image_ids[CLASSES[0]])

    @property
    def listed(self) -> list[str]:
        """All image_ids, class after class."""
        return [image_id for name in CLASSES for image_id in self.image_ids[name]]

    def said(self, parameter: str, split: str) -> str:
        """What is drawn from and what never is, in one sentence without a full stop."""
        left = []
        for name, groups in self.unpaired.items():
            most = next(iter(groups.items()), None)
            example = f", most of them ({most[1]:,}) of {most[0]}" if most else ""
            left.append(f"{sum(groups.values()):,} {name} images{example}")
        return (
            f"{parameter} matched: the {split} split holds {len(self):,} pairs of a benign and a "
            f"malignant image of the same {words(self.by)}, in {self.groups[0]} of "
            f"{self.groups[1]} groups; without a partner, and so not used: {'; '.join(left)}"
        )


def words(by: Sequence[str]) -> str:
    """Column names in words: `source, scale and skin tone`."""
    names = [name.replace("_", " ") for name in by]
    return " and ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), names[-1]])


def pairs(rows: pd.DataFrame, by: Sequence[str], seed: int | str) -> Pairs:
    """The pairs of `rows`, which have the columns image_id, label and those of `by`.

    Images without a value of a column agree with each other in it.
    """
    members = _members(rows, by)
    turns, unpaired = [], {name: dict[str, int]() for name in CLASSES}
    for group, of_class in members.items():
        size = min(map(len, of_class.values()))
        ranked = [
            sorted(ids, key=lambda image_id: rank(seed, image_id))[:size]
            for ids in of_class.values()
        ]
        tie = rank(seed, group)
        turns += [
            ((2 * turn + 1) / size, tie, pair)
            for turn, pair in enumerate(zip(*ranked, strict=True))
        ]
        for name, ids in of_class.items():
            if len(ids) > size:
                unpaired[name][group] = len(ids) - size
    turns.sort()
    return Pairs(
        {name: [pair[number] for _, _, pair in turns] for number, name in enumerate(CLASSES)},
        tuple(by),
        (sum(all(of_class.values()) for of_class in members.values()), len(members)),
        {
            name: dict(sorted(groups.items(), key=lambda item: (-item[1], item[0])))
            for name, groups in unpaired.items()
        },
    )


def count(rows: pd.DataFrame, by: Sequence[str]) -> int:
    """How many pairs `rows` hold; columns label and those of `by`."""
    keys = [rows[name].astype("string").fillna(_UNKNOWN) for name in by]
    sizes = rows.groupby([*keys, rows["label"]]).size().unstack(fill_value=0)
    return int(sizes.reindex(columns=list(CLASSES), fill_value=0).min(axis=1).sum())


def _members(rows: pd.DataFrame, by: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Group in words -> class -> image_ids."""
    labelled = rows[rows["label"].isin(CLASSES)]
    keys = [labelled[name].astype("string").fillna(_UNKNOWN).to_numpy() for name in by]
    members: dict[str, dict[str, list[str]]] = {}
    for label, image_id, *values in zip(
        labelled["label"], labelled["image_id"], *keys, strict=True
    ):
        group = ", ".join(
            f"{value} pixels" if name == "scale" else value
            for name, value in zip(by, values, strict=True)
        )
        members.setdefault(group, {name: [] for name in CLASSES})[label].append(image_id)
    return dict(sorted(members.items()))
