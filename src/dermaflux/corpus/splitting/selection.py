"""Who stays: what a policy makes of the decoded images, with the reason for each that leaves.

Pure functions on columns of equal length, one item per image; reads and writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from dermaflux.corpus.splitting import splits
from dermaflux.corpus.splitting.policies import Policy
from dermaflux.corpus.splitting.records import Decoded
from dermaflux.sources.adapter import Problem

if TYPE_CHECKING:
    import numpy as np

Stage = Literal["source", "decode", "leak", "duplicate"]


@dataclass(frozen=True)
class Selection:
    """What becomes of each image."""

    labels: list[str | None]
    scales: list[int]
    """Pixels."""
    splits: list[str | None]
    groups: list[str | None]
    """Duplicate group."""
    lost: dict[int, tuple[Stage, Problem]] = field(default_factory=dict)
    """Position of each image that leaves, and why; labels, splits and groups of others count."""
    leaks: list[dict[str, str]] = field(default_factory=list)
    """Rows of reports/leaks.csv."""

    def kept(self) -> list[int]:
        """Positions of the images that stay."""
        return [index for index in range(len(self.scales)) if index not in self.lost]

    def counts(self) -> dict[str, Any]:
        """Images kept per scale in training (validation included) and test, and per label."""
        kept = self.kept()
        trained: Counter[str] = Counter()
        tested: Counter[str] = Counter()
        for index in kept:
            part = tested if self.splits[index] == "test" else trained
            part[str(self.scales[index])] += 1
        labels = Counter(self.labels[index] or "" for index in kept)
        rules = Counter(problem.rule for _, problem in self.lost.values())
        return {
            "training": dict(trained),
            "test": dict(tested),
            "labels": dict(labels),
            "left_out": dict(rules),
        }


def select(
    images: Sequence[Decoded],
    edges: np.ndarray[Any, Any],
    published: np.ndarray[Any, Any],
    policy: Policy,
    validation_fraction: float,
    seed: int,
) -> Selection:
    """Apply a policy; `edges` int (E, 2) are pairs of positions that show the same picture.

    Those of them in `published` stand in a dataset's own list of duplicates.
    """
    labels, scales, lost = _by_themselves(images, policy)
    left = [index for index in range(len(images)) if index not in lost]
    ids = [images[index].item.image_id for index in left]
    facts = [images[index].item.record.facts for index in left]
    copies = splits.groups(ids, _among(edges, left, len(images)))
    lesions, patients = [f.lesion_id for f in facts], [f.patient_id for f in facts]
    held_out = [
        policy.held_out(images[index].item.dataset.source, images[index].item.record.split)
        for index in left
    ]
    out: dict[int, tuple[Stage, Problem]] = {}
    tied: dict[int, splits.Tie] = {}
    if policy.leak_guard:
        listed = splits.groups(ids, _among(published, left, len(images)))
        tied = splits.ties(ids, held_out, copies, lesions, patients, listed)
        out = {place: ("leak", problem) for place, problem in splits.leaks(tied).items()}
    if policy.duplicates == "drop":
        rest = [place for place in range(len(left)) if place not in out]
        chosen = splits.surplus(
            [ids[place] for place in rest],
            [copies[place] for place in rest],
            [str(labels[left[place]]) for place in rest],
            [images[left[place]].stored.shorter for place in rest],
        )
        out |= {rest[place]: ("duplicate", problem) for place, problem in chosen.items()}
    together = splits.components(len(left), copies, lesions, patients)
    parts = splits.assign(ids, held_out, together, validation_fraction, seed)
    chosen_splits: list[str | None] = [None] * len(images)
    groups: list[str | None] = [None] * len(images)
    for place, index in enumerate(left):
        chosen_splits[index], groups[index] = parts[place], copies[place]
    lost |= {left[place]: reason for place, reason in out.items()}
    leaks = splits.leak_rows(ids, parts, tied)
    return Selection(labels, scales, chosen_splits, groups, lost, leaks)


def _by_themselves(
    images: Sequence[Decoded], policy: Policy
) -> tuple[list[str | None], list[int], dict[int, tuple[Stage, Problem]]]:
    """Label and scale of each image, and those that leave whatever the others are."""
    labels: list[str | None] = []
    scales: list[int] = []
    lost: dict[int, tuple[Stage, Problem]] = {}
    for index, image in enumerate(images):
        source, facts, stored = image.item.dataset.source, image.item.record.facts, image.stored
        labels.append(policy.label(source, facts.label or ""))
        scales.append(policy.scale(source, stored.shorter))
        if labels[-1] is None:
            what = facts.diagnosis or "this diagnosis"
            reason = f"{what} is neither benign nor malignant; ingest.indeterminate decides"
            lost[index] = ("source", Problem("indeterminate", reason))
        elif stored.shorter < policy.minimum_side:
            reason = (
                f"{stored.width} x {stored.height} is below ingest.minimum_side "
                f"{policy.minimum_side}; lower that parameter to keep it"
            )
            lost[index] = ("decode", Problem("too-small", reason))
    return labels, scales, lost


def _among(edges: np.ndarray[Any, Any], left: Sequence[int], count: int) -> np.ndarray[Any, Any]:
    """Edges between images that are left, as places in `left`."""
    import numpy as np

    place = np.full(count, -1, dtype=np.int64)
    place[np.asarray(left, dtype=np.int64)] = np.arange(len(left))
    moved = place[edges.reshape(-1, 2)]
    both: np.ndarray[Any, Any] = moved[(moved >= 0).all(axis=1)]
    return both
