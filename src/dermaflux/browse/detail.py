"""What the page of one image shows: facts, provenance, copies, neighbours, how to make it again."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass, field
from typing import Any

from datasette.app import Datasette

from dermaflux.browse.images import Images, NoImage, Place
from dermaflux.browse.index import DATABASE
from dermaflux.browse.rows import QUARANTINED, SYNTHETIC

_SHOWN = 24
"""Copies, and neighbours of a kind, shown on a page."""


@dataclass
class Tile:
    """One image beside others."""

    row: int
    image_id: str
    kind: str
    label: str | None
    note: str


@dataclass
class Detail:
    """The page of one image."""

    facts: dict[str, Any]
    """The row of the index."""
    problem: str | None = None
    """Why the image cannot be shown."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Every column of its shard that has a value."""
    again: str | None = None
    """The command that makes the image again."""
    not_again: str | None = None
    """Why a synthetic image cannot be made again."""
    near: list[Tile] = field(default_factory=list)
    """What the audit found beside it."""
    missing: list[str] = field(default_factory=list)
    """Images that the audit names and the tables do not hold."""
    copies: list[Tile] = field(default_factory=list)
    """Other images of its duplicate group."""


async def of(datasette: Datasette, images: Images, row: int, place: Place | None) -> Detail:
    """The page of a row of the table `images`."""
    facts = (await _query(datasette, "select * from images where row = :row", row=row))[0]
    page = Detail({name: _shortened(value) for name, value in facts.items()})
    try:
        await asyncio.to_thread(images.full, place)
        if place is not None and place.row_group is not None:
            stored = await asyncio.to_thread(images.provenance, place)
            page.provenance = {name: value for name, value in stored.items() if value is not None}
    except NoImage as problem:
        page.problem = str(problem)
    if place is not None:
        page.provenance["file"] = place.file
    if facts["kind"] == SYNTHETIC:
        _make_again(page)
        await _nearest(datasette, page)
    elif facts["kind"] != QUARANTINED:
        await _synthetic_near(datasette, page)
    if facts["duplicate_group"] is not None:
        found = await _query(
            datasette,
            "select row, image_id, kind, label, quarantine_rule, split from images "
            "where duplicate_group = :group and row != :row order by row limit :most",
            group=facts["duplicate_group"],
            row=row,
            most=_SHOWN,
        )
        page.copies = [_tile(line, line["quarantine_rule"] or line["split"]) for line in found]
    return page


def _make_again(page: Detail) -> None:
    stored = page.provenance
    if "seed" in stored and "weights" in stored and stored.get("generator") != "released":
        page.again = f"dermaflux reproduce {shlex.quote(stored['image_id'])}"
    elif page.problem is None:
        page.not_again = "A released image carries no seed, so it cannot be made again here."


async def _nearest(datasette: Datasette, page: Detail) -> None:
    """The training images that the audit found nearest and most similar."""
    found = await _query(
        datasette, "select * from neighbours where image_id = :id", id=page.facts["image_id"]
    )
    for line in found:
        for name, note in (
            (line["nearest_id"], _nearest_note(line)),
            (line["original_id"], f"most similar, correlation {_number(line['correlation'])}"),
        ):
            if name is None:
                continue
            real = await _query(
                datasette,
                "select row, image_id, kind, label from images where image_id = :id "
                "order by kind = 'quarantined', row limit 1",
                id=name,
            )
            page.near += [_tile(row, note) for row in real]
            page.missing += [] if real else [name]


def _nearest_note(line: dict[str, Any]) -> str:
    return (
        f"nearest of training, distance {_number(line['distance'])}, ratio {_number(line['ratio'])}"
    )


async def _synthetic_near(datasette: Datasette, page: Detail) -> None:
    """Synthetic images whose nearest training image this is, the nearest first."""
    found = await _query(
        datasette,
        "select images.row, images.image_id, kind, label, ratio from neighbours "
        "join images on images.image_id = neighbours.image_id and kind = 'synthetic' "
        "where nearest_id = :id order by ratio limit :most",
        id=page.facts["image_id"],
        most=_SHOWN,
    )
    page.near = [_tile(line, f"ratio {_number(line['ratio'])}") for line in found]


def _shortened(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


def _tile(line: dict[str, Any], note: str | None) -> Tile:
    return Tile(line["row"], line["image_id"], line["kind"], line["label"], note or "")


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


async def _query(datasette: Datasette, sql: str, **values: Any) -> list[dict[str, Any]]:
    found = await datasette.get_database(DATABASE).execute(sql, values)
    return [dict(line) for line in found.rows]
