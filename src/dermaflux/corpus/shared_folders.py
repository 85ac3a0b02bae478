"""Entries of `ingest.own` with a CSV file each may share a folder; an image counts once. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from dermaflux.corpus.splitting.records import Item
from dermaflux.sources.adapter import Problem


def once(items: Iterable[Item]) -> list[Item]:
    """Every file once, where two entries of `ingest.own` read the CSV files of one folder.

    A file belongs to the entry whose CSV names it. Where both name it, the second one's item has a
    `Problem`; where neither does, the first one's stays.
    """
    by_file: dict[tuple[Path, str | None], list[Item]] = {}
    kept = []
    for item in items:
        if item.record.path is None:
            kept.append(item)
        else:
            by_file.setdefault((item.record.path, item.record.member), []).append(item)
    for found in by_file.values():
        named = [item for item in found if not _without_row(item)] or found[:1]
        kept.append(named[0])
        for item in named[1:]:
            reason = f"{named[0].image_id} is the same file; remove one of the rows"
            facts = replace(item.record.facts, problem=Problem("repeated-file", reason))
            kept.append(replace(item, record=replace(item.record, facts=facts)))
    return kept


def _without_row(item: Item) -> bool:
    problem = item.record.facts.problem
    return problem is not None and problem.rule == "no-row"
