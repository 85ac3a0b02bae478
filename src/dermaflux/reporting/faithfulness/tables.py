"""Tables of the page on what synthetic images show, made from `reports/audit.json`. Pure.

`build` returns a table or several for each group that the audit has; a figure that could not be
given is a cell with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dermaflux.reporting.pages import number

Json = Mapping[str, Any]
GROUPS = ("control", "separability", "coverage", "artefacts")
"""Keys of `reports/audit.json`, and the names of their sections."""
_KINDS = {
    "synthetic": "synthetic images, their prompts",
    "permuted": "the same, prompts permuted within each class",
    "real": "real images, their own captions",
}
_AGAINST = {
    "train": "synthetic against real of split train",
    "test": "synthetic against real of split test",
    "floor": "real of split test against real of split train",
}
_TRANSFER = {
    "real_real": "real (train), tested on real (test)",
    "synthetic_real": "synthetic, tested on real (test)",
    "real_synthetic": "real (train), tested on synthetic",
}
_MARKS = {
    "saturation": ("saturated pixels, share", 3),
    "border": ("step at the edge, dB", 1),
}


@dataclass(frozen=True)
class Table:
    """Rows of text; the first cell of each is its heading."""

    caption: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


def build(audit: Json) -> dict[str, Any]:
    """Group -> its tables, or the reason why there are none; no group of an earlier audit."""
    makers = {
        "control": _control,
        "separability": _separability,
        "coverage": _coverage,
        "artefacts": _artefacts,
    }
    found: dict[str, Any] = {}
    for name, maker in makers.items():
        if name in audit:
            group = audit[name]
            reason = group.get("reason")
            found[name] = {"reason": reason, "tables": [] if reason else maker(group)}
    return found


def figure(value: Json, places: int = 3) -> str:
    """`0.470 (0.308 to 0.606)`, or the reason why there is none."""
    if value.get("value") is None:
        return f"not given: {value.get('reason', 'not measured')}"
    low, high = (number(value[limit], places) for limit in ("low", "high"))
    return f"{number(value['value'], places)} ({low} to {high})"


def _control(group: Json) -> list[Table]:
    kinds = {name: group[name] for name in _KINDS}
    attributes = [*next(iter(group["synthetic"].values()))]
    rows: list[tuple[str, ...]] = []
    for kind, of_kind in kinds.items():
        title = _KINDS[kind]
        if "reason" in of_kind:
            rows.append((title, "all", *(figure(of_kind) for _ in attributes)))
            continue
        if reference := of_kind.get("reference"):
            title += f" (split {reference})"
        for name, figures in of_kind.items():
            if name == "reference":
                continue
            cells = [
                f"{figure(figures[each])}, {figures[each]['images']:,} images"
                for each in attributes
            ]
            rows.append((title, name, *cells))
    head = ("images", "class", *attributes)
    return [Table("Spearman's rho of the level asked for and the value measured", head, rows)]


def _separability(group: Json) -> list[Table]:
    rows: list[tuple[str, ...]] = []
    for kind, title in _AGAINST.items():
        rows.append((title, "mean of classes", "", figure(group[kind]["auc"])))
        for name, row in group[kind]["classes"].items():
            counts = f"{row['images']:,} and {row['reference_images']:,}"
            rows.append((title, name, counts, figure(row)))
    transfer: list[tuple[str, ...]] = [
        (title, f"{row['images']:,} and {row['tested_images']:,}", figure(row))
        for title, row in ((_TRANSFER[name], group["transfer"][name]) for name in _TRANSFER)
    ]
    return [
        Table(
            f"Telling synthetic from real images, in the features of {group['trunk']}",
            ("compared", "class", "images", "AUC"),
            rows,
        ),
        Table(
            "Telling malignant from benign by the same cheap classifier",
            ("learned from", "images learned from and tested on", "AUC"),
            transfer,
        ),
    ]


def _coverage(group: Json) -> list[Table]:
    tables = []
    for attribute, found in group.items():
        words = attribute.replace("_", " ")
        if "reason" in found:
            tables.append(Table(f"{words}: {found['reason']}", (words,), []))
            continue
        wanted = found["distance"].get("asked_to_wanted") is not None
        head = (words, *(("wanted",) if wanted else ()), "real (training)", "asked for", "shown")
        rows = [
            (
                row["value"],
                *((number(row["wanted"]),) if wanted else ()),
                *(_of(row[column]) for column in ("training", "asked", "nearest")),
            )
            for row in found["values"]
        ]
        tables.append(Table(_said(words, found), head, rows))
    return tables


def _of(row: Json) -> str:
    return "–" if row["value"] is None else f"{figure(row)}, {row['count']:,} of {row['of']:,}"


def _said(words: str, found: Json) -> str:
    """Caption of a table of coverage: how near, and how far the instrument can be trusted."""
    said = [f"Shares by {words}."]
    distance = found["distance"]
    for name, title in (
        ("nearest_to_wanted", "wanted"),
        ("nearest_to_asked", "asked for"),
        ("nearest_to_training", "training images"),
    ):
        if name in distance:
            said.append(f"Shown to {title}: distance {figure(distance[name])}.")
    if (exact := distance.get("asked_to_wanted")) is not None:
        said.append(f"Asked for to wanted: distance {number(exact)}.")
    if found["hit"]["value"] is not None:
        said.append(
            f"What was asked for is shown by {_of(found['hit'])}; "
            f"by chance it would be {number(found['hit']['chance'])}."
        )
    said.append(
        f"The same instrument is right for {_of(found['accuracy'])} real validation images."
    )
    return " ".join(said)


def _artefacts(group: Json) -> list[Table]:
    rows: list[tuple[str, ...]] = []
    for name, row in group["marks"].items():
        grid = f"grid of {name.removeprefix('grid_')} px, dB"
        title, places = _MARKS.get(name, (grid, 1))
        counts = f"{row['images']:,} and {row['reference_images']:,}"
        medians = (
            ("", "")
            if row["value"] is None
            else tuple(figure(row[kind], places) for kind in ("synthetic", "real"))
        )
        rows.append((title, counts, *medians, figure(row)))
    repeats = group["repeats"]
    counted = figure(repeats)
    if repeats["value"] is not None:
        counted = f"{counted}: {repeats['count']:,} of {repeats['images']:,} images"
    head = ("mark", "images", "synthetic, median", "real, median", "AUC, synthetic above real")
    caption = f"Marks of synthetic images and of real ones of split {group['reference']}"
    return [
        Table(caption, head, rows),
        Table(
            "Images of the pool that show what another one shows",
            ("rule", "share"),
            [("fine detail correlates with that of another image", counted)],
        ),
    ]
