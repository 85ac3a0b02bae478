"""What `ingest` says about a dataset whose names do not match, with an example of each side. Pure.

Give each function the records of one dataset, those that ingest adds for files outside the layout
included. Names are quoted, so that they are safe to print.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from dermaflux.core.file_names import composed
from dermaflux.errors import quoted
from dermaflux.sources.adapter import Record

_WITHOUT_ROW = ("no-row", "outside-layout")


def unmatched_example(records: Iterable[Record]) -> str | None:
    """One sentence when rows have no image and images no row; None when either side is complete."""
    rows: list[Record] = []
    images: list[Record] = []
    named = 0
    for record in records:
        named += record.row is not None
        rule = record.facts.problem.rule if record.facts.problem else None
        if rule == "no-image":
            rows.append(record)
        elif rule in _WITHOUT_ROW:
            images.append(record)
    if not rows or not images:
        return None
    if len(rows) == named:
        share, without = f"none of the {_count(named, 'name')}", "matches one of"
    else:
        share, without = f"{len(rows):,} of the {_count(named, 'name')}", "match none of"
    return (
        f"{share} in {_table(rows[0])}, such as {quoted(rows[0].named)}, {without} the "
        f"{_count(len(images), 'image')} without a row, such as {quoted(_file(images[0]))}; make "
        "the names in the CSV file those of the image files"
    )


def rewritten_example(records: Iterable[Record]) -> str | None:
    """One sentence when names matched that the CSV file writes differently; None without any."""
    different = [record for record in records if record.named is not None and record.path]
    if not different:
        return None
    first = different[0]
    named, file = str(first.named), _file(first)
    alike = named != file and composed(named) == composed(file)
    return (
        f"{_count(len(different), 'name')} in {_table(first)} matched an image whose name is "
        f"written differently, such as {quoted(named)} and {quoted(file)}"
        + (", which look alike and differ in their Unicode form" if alike else "")
    )


def passed_over_sentence(passed_over: Mapping[str, int]) -> str | None:
    """One sentence about the files that `walk_images` counted as no images; None without any."""
    kinds = [f"{count} {kind}" for kind, count in sorted(passed_over.items()) if count]
    total = sum(passed_over.values())
    return f"passed over {_count(total, 'file')}: {', '.join(kinds)}" if kinds else None


def _table(record: Record) -> str:
    """Name of the CSV file of a record's row."""
    return str(record.row).rpartition(":")[0]


def _file(record: Record) -> str:
    """An image's name in its dataset, with its suffix."""
    if record.path is None or record.member is not None:
        return record.original_id
    return record.original_id + os.path.splitext(record.path.name)[1]


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
