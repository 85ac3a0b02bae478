"""What leaves training and what goes to validation: leak guard, redundant copies, grouped split.

Pure functions on columns of equal length, one item per image; keys are None where unknown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dermaflux.sources.adapter import Problem

if TYPE_CHECKING:
    from dermaflux.core.arrays import Array

Keys = Sequence[str | None]


def linked(count: int, edges: Array) -> Array:
    """Component number int (count,) of each item under undirected edges int (E, 2)."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
    ones = np.ones(len(edges), dtype=np.int8)
    graph = coo_array((ones, (edges[:, 0], edges[:, 1])), shape=(count, count))
    labels: Array = connected_components(graph, directed=False)[1]
    return labels


def components(count: int, *columns: Keys) -> Array:
    """Component number of each item when items that share a key of any column belong together."""
    import numpy as np

    edges = []
    for column in columns:
        first: dict[str, int] = {}
        for item, key in enumerate(column):
            if key is not None and first.setdefault(key, item) != item:
                edges.append((first[key], item))
    return linked(count, np.array(edges, dtype=np.int64))


def groups(ids: Sequence[str], edges: Array) -> list[str | None]:
    """Name of each item's group of linked items, its smallest id; None for an item alone."""
    labels = linked(len(ids), edges).tolist()
    members: dict[int, list[str]] = {}
    for name, label in zip(ids, labels, strict=True):
        members.setdefault(label, []).append(name)
    names = {label: min(m) if len(m) > 1 else None for label, m in members.items()}
    return [names[label] for label in labels]


@dataclass(frozen=True, slots=True)
class Leak:
    """Why an image may not be trained on."""

    kind: Literal["published list", "duplicate group", "lesion", "patient", "chain"]
    """What it shares with the test image; `chain` when only other images link the two."""
    test: str
    """Id of the test image."""


def leaks(
    ids: Sequence[str],
    held_out: Sequence[bool],
    duplicate: Keys,
    lesion: Keys,
    patient: Keys,
    published: Keys | None = None,
) -> dict[int, Leak]:
    """Training items that a chain of shared groups links to a test item, and how.

    `published` groups come from published lists of duplicates, and may be parts of `duplicate`
    groups; of several kinds of `Leak` the first in its list is reported.
    """
    kinds = (
        ("published list", published or [None] * len(ids)),
        ("duplicate group", duplicate),
        ("lesion", lesion),
        ("patient", patient),
    )
    labels = components(len(ids), *(column for _, column in kinds)).tolist()
    tests: dict[int, str] = {}
    direct: list[dict[str, str]] = [{} for _ in kinds]
    for item, name in enumerate(ids):
        if not held_out[item]:
            continue
        tests[labels[item]] = min(name, tests.get(labels[item], name))
        for known, (_, column) in zip(direct, kinds, strict=True):
            if (key := column[item]) is not None:
                known[key] = min(name, known.get(key, name))
    leaked = {}
    for item in range(len(ids)):
        if held_out[item] or labels[item] not in tests:
            continue
        leaked[item] = Leak("chain", tests[labels[item]])
        for known, (kind, column) in zip(direct, kinds, strict=True):
            if (key := column[item]) is not None and key in known:
                leaked[item] = Leak(kind, known[key])  # type: ignore[arg-type]
                break
    return leaked


def leak_problems(leaked: Mapping[int, Leak]) -> dict[int, Problem]:
    """The problem of each leaked item, for the quarantine table."""
    return {
        item: Problem(
            "test-leak",
            f"it is tied through lesions or patients to test image {leak.test}"
            if leak.kind == "chain"
            else f"it shares its {leak.kind} with test image {leak.test}",
        )
        for item, leak in leaked.items()
    }


LEAK_COLUMNS = ("image_id", "split", "test_image", "tie")


def leak_rows(
    ids: Sequence[str], parts: Sequence[str], leaked: Mapping[int, Leak]
) -> list[dict[str, str]]:
    """Rows of reports/leaks.csv by image id: what left which split (`parts`), and why."""
    rows = [(ids[item], parts[item], leak.test, leak.kind) for item, leak in leaked.items()]
    return [dict(zip(LEAK_COLUMNS, row, strict=True)) for row in sorted(rows)]


def redundant(
    ids: Sequence[str], duplicate: Keys, labels: Sequence[str], sides: Sequence[int]
) -> dict[int, Problem]:
    """Items to drop so that each duplicate group keeps one: the largest, then the first by id.

    Where the labels of a group disagree, none can be trusted and all are dropped. To be used after
    `leaks`, so that a group is within training or within test.
    """
    members: dict[str, list[int]] = {}
    for item, key in enumerate(duplicate):
        if key is not None:
            members.setdefault(key, []).append(item)
    problems: dict[int, Problem] = {}
    for group in members.values():
        best = min(group, key=lambda item: (-sides[item], ids[item]))
        if len({labels[item] for item in group}) > 1:
            labelled = ", ".join(f"{ids[item]} is {labels[item]}" for item in group[:4])
            reason = f"copies of one image carry two labels: {labelled}"
            problems.update(dict.fromkeys(group, Problem("label-conflict", reason)))
            continue
        problem = Problem("duplicate", f"it shows the same image as {ids[best]}, which is kept")
        problems.update((item, problem) for item in group if item != best)
    return problems


def assign(
    ids: Sequence[str],
    held_out: Sequence[bool],
    labels: Array,
    fraction: float,
    seed: int,
    classes: Keys | None = None,
) -> list[str]:
    """`train`, `validation` or `test` of each item; items of one component stay together.

    `labels` int (N,) are component numbers, `classes` the classes that each part must hold; see
    `draw`, which takes `fraction` of the components without a test item for validation.
    """
    free = [not test for test in held_out]
    validation = draw("validation", ids, free, labels, fraction, seed, classes, reserve=1)
    return [
        "test" if test else "validation" if drawn else "train"
        for test, drawn in zip(held_out, validation, strict=True)
    ]


def draw(
    part: Literal["validation", "test"],
    ids: Sequence[str],
    free: Sequence[bool],
    labels: Array,
    fraction: float,
    seed: int,
    classes: Keys | None = None,
    reserve: int = 0,
) -> list[bool]:
    """Whether each item belongs to a part that takes `fraction` of the components (`labels`).

    A component is drawn when the hash of part, seed and its smallest id falls below `fraction`, so
    that adding images never moves the components they do not touch. Where a class is so rare that
    this would take none of its components, or not leave `reserve` of them for other parts, the
    order of the hashes decides: the other parts are served first, then this one. Items that are not
    `free` are never drawn; items whose class is None do not count for any class.
    """
    components = labels.tolist()
    smallest: dict[int, str] = {}
    for name, label in zip(ids, components, strict=True):
        smallest[label] = min(name, smallest.get(label, name))
    position = {label: _uniform(part, seed, name) for label, name in smallest.items()}
    drawn = {label for label, value in position.items() if value < fraction}
    holders: dict[str, set[int]] = {}
    for label, known, is_free in zip(components, classes or [None] * len(ids), free, strict=True):
        if known is not None and is_free:
            holders.setdefault(known, set()).add(label)
    orders = [sorted(groups, key=position.__getitem__) for groups in holders.values()]
    for order in orders:
        drawn -= set(order[max(len(order) - reserve, 0) :])
    for order in orders:
        drawn |= set(order[: len(order) > reserve])
    return [is_free and label in drawn for label, is_free in zip(components, free, strict=True)]


def _uniform(part: str, seed: int, name: str) -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    digest = hashlib.sha256(f"{part} split\0{seed}\0{name}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
