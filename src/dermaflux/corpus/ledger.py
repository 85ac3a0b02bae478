"""What becomes of every record: the items of the stage `ingest`, and the counts that must add up.

Pure: turns them into the text of reports/quarantine.csv and the content of reports/ingest.json.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dermaflux.corpus.sources.adapter import Problem, Record
from dermaflux.corpus.sources.discovery import Dataset
from dermaflux.corpus.spool import Stored

_COLUMNS = ("source", "location", "image_id", "stage", "rule", "reason")


@dataclass(frozen=True, slots=True)
class Item:
    """One record on its way: an image file, or a CSV row without one."""

    dataset: Dataset
    record: Record
    location: str
    """Path of the file below the data folder, or of the CSV file and its line."""

    @property
    def image_id(self) -> str:
        """Unique in the corpus."""
        return f"{self.dataset.source.name}/{self.record.original_id}"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row of the quarantine table."""

    item: Item
    stage: Literal["source", "decode", "leak", "duplicate"]
    problem: Problem
    scale: int | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """An image that decoded and has a label."""

    item: Item
    stored: Stored
    label: str


Row = tuple[dict[str, Any], Stored]
"""A corpus row without pixels, and where they are."""


def quarantine_csv(rejected: Sequence[Rejected]) -> str:
    """The quarantine table as CSV text, ordered by source and location."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    rows = [
        (
            reject.item.dataset.source.name,
            reject.item.location,
            reject.item.image_id,
            reject.stage,
            reject.problem.rule,
            reject.problem.reason,
        )
        for reject in rejected
    ]
    writer.writerows(sorted(rows))
    return out.getvalue()


def summary(
    items: Sequence[Item],
    rows: Sequence[Row],
    rejected: Sequence[Rejected],
    datasets: Sequence[Dataset],
) -> dict[str, Any]:
    """Counts of the stage: of images and unmatched rows in, kept and quarantined."""
    read_from = Counter(item.dataset.source.name for item in items)
    kept = Counter(row["source"] for row, _ in rows)
    lost = Counter(reject.item.dataset.source.name for reject in rejected)
    sources = {
        d.source.name: {
            "title": d.source.title,
            "licence": d.source.licence,
            "citation": d.source.citation,
            "url": d.source.url,
            "in": read_from[d.source.name],
            "kept": kept[d.source.name],
            "quarantined": lost[d.source.name],
        }
        for d in datasets
    }
    return {
        "images": {"in": len(items), "kept": len(rows), "quarantined": len(rejected)},
        "sources": sources,
        "kept": _nested(rows),
        "scales": _by_scale(rows, rejected),
        "quarantine": {
            "stage": dict(Counter(reject.stage for reject in rejected)),
            "rule": dict(Counter(reject.problem.rule for reject in rejected)),
        },
    }


def _nested(rows: Sequence[Row]) -> dict[str, Any]:
    """Split -> source -> label -> scale -> images kept."""
    result: dict[str, Any] = {}
    for row, _ in rows:
        place = result.setdefault(row["split"], {}).setdefault(row["source"], {})
        place = place.setdefault(row["label"], {})
        place[str(row["scale"])] = place.get(str(row["scale"]), 0) + 1
    return result


def _by_scale(rows: Sequence[Row], rejected: Sequence[Rejected]) -> dict[str, dict[str, int]]:
    """Scale -> in, kept, quarantined; `none` holds what was quarantined before it had a scale."""
    kept = Counter(str(row["scale"]) for row, _ in rows)
    lost = Counter(str(reject.scale or "none") for reject in rejected)
    return {
        scale: {"in": kept[scale] + lost[scale], "kept": kept[scale], "quarantined": lost[scale]}
        for scale in sorted(kept.keys() | lost.keys())
    }


def group_sizes(copies: Sequence[str | None]) -> dict[str, int]:
    """Number of duplicate groups, of images in them, and of images in the largest."""
    sizes = Counter(name for name in copies if name is not None)
    return {
        "groups": len(sizes),
        "images": sum(sizes.values()),
        "largest": max(sizes.values(), default=0),
    }
