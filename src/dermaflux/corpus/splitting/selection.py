"""Which images stay: the outcome of a policy, with the reason for each image that leaves.

Pure functions on columns of equal length, one entry per image; reads and writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dermaflux.core.vocabulary import CLASSES
from dermaflux.corpus.splitting import splits
from dermaflux.corpus.splitting.policies import Policy
from dermaflux.corpus.splitting.records import DecodedItem, Stage
from dermaflux.sources.adapter import Problem

if TYPE_CHECKING:
    from dermaflux.core.arrays import Array


@dataclass(frozen=True)
class Selection:
    """What becomes of each image."""

    labels: list[str | None]
    scales: list[int]
    """Pixels."""
    splits: list[str | None]
    """None for an image that leaves before the corpus is split."""
    groups: list[str | None]
    """Duplicate group; None for an image without copies."""
    lost: dict[int, tuple[Stage, Problem]] = field(default_factory=dict)
    """Index of each image that leaves, and why."""
    leaks: list[dict[str, str]] = field(default_factory=list)
    """Rows of reports/leaks.csv."""
    unpublished_test: bool = False
    """Whether no image that stays is in a published test part, so that one is drawn, if asked."""

    def kept(self) -> list[int]:
        """Indices of the images that stay."""
        return [index for index in range(len(self.scales)) if index not in self.lost]

    def counts(self) -> dict[str, Any]:
        """Images kept per scale in training (validation included) and test, and per label."""
        kept = self.kept()
        training: Counter[str] = Counter()
        test: Counter[str] = Counter()
        for index in kept:
            part = test if self.splits[index] == "test" else training
            part[str(self.scales[index])] += 1
        labels = Counter(self.labels[index] or "" for index in kept)
        rules = Counter(problem.rule for _, problem in self.lost.values())
        return {
            "training": dict(training),
            "test": dict(test),
            "labels": dict(labels),
            "left_out": dict(rules),
        }


def select(
    decoded: Sequence[DecodedItem],
    edges: Array,
    published: Array,
    policy: Policy,
    validation_fraction: float,
    seed: int,
    test_fraction: float | None = None,
) -> Selection:
    """Apply a policy.

    `edges` int (E, 2) are pairs of indices of images that show the same photograph, `published`
    those of them that a dataset's own list of duplicates names. `test_fraction` of the groups of
    images that belong together (or of the images, as `policy.test_by` says) become the test part
    where no image that stays is in a published one; with None there is then no test part.
    """
    import numpy as np

    labels, scales, lost = _one_by_one(decoded, policy)
    left = [index for index in range(len(decoded)) if index not in lost]
    ids = [decoded[index].item.image_id for index in left]
    facts = [decoded[index].item.record.facts for index in left]
    copies = splits.groups(ids, _among(edges, left, len(decoded)))
    lesions, patients = [f.lesion_id for f in facts], [f.patient_id for f in facts]
    held_out = [
        policy.held_out(decoded[index].item.dataset.source, decoded[index].item.record.split)
        for index in left
    ]
    out: dict[int, tuple[Stage, Problem]] = {}
    leaks: dict[int, splits.Leak] = {}
    if policy.leak_guard:
        listed = splits.groups(ids, _among(published, left, len(decoded)))
        leaks = splits.leaks(ids, held_out, copies, lesions, patients, listed)
        out = {row: ("leak", problem) for row, problem in splits.leak_problems(leaks).items()}
    if policy.duplicates == "drop":
        rest = [row for row in range(len(left)) if row not in out]
        redundant = splits.redundant(
            [ids[row] for row in rest],
            [copies[row] for row in rest],
            [str(labels[left[row]]) for row in rest],
            [decoded[left[row]].image.shorter for row in rest],
        )
        out |= {rest[row]: ("duplicate", problem) for row, problem in redundant.items()}
    together = splits.components(len(left), copies, lesions, patients)
    classes = [None if row in out else labels[index] for row, index in enumerate(left)]
    classes = [name if name in CLASSES else None for name in classes]
    drawn = not any(test and row not in out for row, test in enumerate(held_out))
    if drawn and test_fraction is not None:
        free = [not test for test in held_out]
        units = np.arange(len(ids)) if policy.test_by == "image" else together
        held_out = splits.draw("test", ids, free, units, test_fraction, seed, classes, reserve=2)
    published_parts = [decoded[index].item.record.split for index in left]
    parts = _parts(
        published_parts, ids, held_out, together, policy, validation_fraction, seed, classes
    )
    split_column: list[str | None] = [None] * len(decoded)
    group_column: list[str | None] = [None] * len(decoded)
    for row, index in enumerate(left):
        split_column[index], group_column[index] = parts[row], copies[row]
    lost |= {left[row]: reason for row, reason in out.items()}
    leak_rows = splits.leak_rows(ids, parts, leaks)
    return Selection(labels, scales, split_column, group_column, lost, leak_rows, drawn)


def _parts(
    published_parts: Sequence[str],
    ids: Sequence[str],
    held_out: Sequence[bool],
    together: Array,
    policy: Policy,
    fraction: float,
    seed: int,
    classes: Sequence[str | None],
) -> list[str]:
    """The split of each image; what belongs together to a published validation image joins it."""
    import numpy as np

    if policy.validation_by == "published":
        chosen = {
            label
            for label, split in zip(together.tolist(), published_parts, strict=True)
            if split == "validation"
        }
        return [
            "test" if test else "validation" if label in chosen else "train"
            for label, test in zip(together.tolist(), held_out, strict=True)
        ]
    groups = np.arange(len(ids)) if policy.validation_by == "image" else together
    return splits.assign(ids, held_out, groups, fraction, seed, classes)


def _one_by_one(
    decoded: Sequence[DecodedItem], policy: Policy
) -> tuple[list[str | None], list[int], dict[int, tuple[Stage, Problem]]]:
    """Label and scale of each image, and those that leave regardless of the other images."""
    labels: list[str | None] = []
    scales: list[int] = []
    lost: dict[int, tuple[Stage, Problem]] = {}
    for index, entry in enumerate(decoded):
        source, facts, image = entry.item.dataset.source, entry.item.record.facts, entry.image
        labels.append(policy.label(source, facts.label or ""))
        scales.append(policy.scale(source, image.shorter))
        if labels[-1] is None:
            what = facts.diagnosis or "this diagnosis"
            reason = f"{what} is neither benign nor malignant; ingest.indeterminate decides"
            lost[index] = ("source", Problem("indeterminate", reason))
        elif entry.item.record.split == "validation" and policy.validation_by != "published":
            reason = (
                "it belongs to the published validation part; set ingest.validation_by to published"
                " to validate with that"
            )
            lost[index] = ("source", Problem("published-validation", reason))
        elif policy.passed_over(source, entry.item.record.split):
            reason = (
                "it belongs to a published test part; set ingest.test_by to published to test with "
                "that"
            )
            lost[index] = ("source", Problem("published-test", reason))
        elif image.shorter < policy.minimum_side:
            reason = (
                f"{image.width} x {image.height} is below ingest.minimum_side "
                f"{policy.minimum_side}; lower that parameter to keep it"
            )
            lost[index] = ("decode", Problem("too-small", reason))
    return labels, scales, lost


def _among(edges: Array, left: Sequence[int], count: int) -> Array:
    """The edges between images that are left, as indices into `left`."""
    import numpy as np

    rows = np.full(count, -1, dtype=np.int64)
    rows[np.asarray(left, dtype=np.int64)] = np.arange(len(left))
    renumbered = rows[edges.reshape(-1, 2)]
    both_left: Array = renumbered[(renumbered >= 0).all(axis=1)]
    return both_left
