"""Folders that two datasets read: entries of `ingest.own`, or published ones unpacked together.

Pure. Derm7pt is such a folder: its CSV file names a dermoscopic and a clinical photograph of every
lesion in two columns. Each image counts once, and lesions and patients stay one group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from dermaflux.corpus.splitting.records import Item
from dermaflux.sources.adapter import Problem
from dermaflux.sources.registry import SOURCES

_UNNAMED = ("no-row", "outside-layout")


def once(items: Iterable[Item]) -> list[Item]:
    """Every file once, and one name for a patient or lesion that both entries of a folder know.

    A file belongs to the dataset whose CSV or layout names it. Where both name it, the second one's
    item has a `Problem`; where neither does, one item stays.
    """
    by_file: dict[tuple[Path, str | None], list[Item]] = {}
    kept = []
    for item in _with_common_ids(items):
        if item.record.path is None:
            kept.append(item)
        else:
            by_file.setdefault((item.record.path, item.record.member), []).append(item)
    for found in by_file.values():
        named = [item for item in found if _rule(item) not in _UNNAMED]
        without_row = [item for item in found if _rule(item) == "no-row"]
        kept.append((named or without_row or found)[0])
        for item in named[1:]:
            reason = f"{named[0].image_id} is the same file; remove one of the rows"
            kept.append(_with_facts(item, problem=Problem("repeated-file", reason)))
    return kept


def _with_common_ids(items: Iterable[Item]) -> Iterator[Item]:
    """Ids of patients and lesions with the prefix of the first entry that reads the folder."""
    first: dict[Path, str] = {}
    for item in items:
        name, facts = item.dataset.source.name, item.record.facts
        common = name if name in SOURCES else first.setdefault(item.dataset.root, name)
        if common == name:
            yield item
            continue
        ids = {"patient_id": facts.patient_id, "lesion_id": facts.lesion_id}
        for kind, value in ids.items():
            if value is not None and value.startswith(f"{name}:"):
                ids[kind] = f"{common}:{value.removeprefix(f'{name}:')}"
        yield _with_facts(item, **ids)


def _with_facts(item: Item, **changes: Any) -> Item:
    facts = replace(item.record.facts, **changes)
    return replace(item, record=replace(item.record, facts=facts))


def _rule(item: Item) -> str | None:
    problem = item.record.facts.problem
    return problem.rule if problem else None
