"""What becomes of every record: the items of the stage `ingest`, and the counts that must add up.

Pure: turns them into the text of reports/quarantine.csv and reports/leaks.csv, and the content of
reports/ingest.json.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dermaflux.corpus.decoding.decode_cache import Stored
from dermaflux.corpus.splitting.splits import LEAK_COLUMNS
from dermaflux.sources.adapter import Problem, Record
from dermaflux.sources.discovery import Dataset

if TYPE_CHECKING:
    from dermaflux.corpus.splitting.selection import Selection

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

    @property
    def licence(self) -> str:
        """Of the image, where the dataset says it per image, else of the dataset."""
        return self.record.facts.licence or self.dataset.source.licence


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row of the quarantine table."""

    item: Item
    stage: Literal["source", "decode", "leak", "duplicate"]
    problem: Problem
    scale: int | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image that has a meaning and decoded."""

    item: Item
    stored: Stored


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


def leaks_csv(rows: Sequence[Mapping[str, str]]) -> str:
    """The table of what left training because of a test image, as CSV text."""
    out = io.StringIO()
    writer = csv.DictWriter(out, LEAK_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def summary(
    items: Sequence[Item],
    images: Sequence[Decoded],
    chosen: Selection,
    rejected: Sequence[Rejected],
    datasets: Sequence[Dataset],
) -> dict[str, Any]:
    """Counts of the stage: of images and unmatched rows in, kept and quarantined."""
    kept = chosen.kept()
    read_from = Counter(item.dataset.source.name for item in items)
    kept_of = Counter(images[index].item.dataset.source.name for index in kept)
    lost = Counter(reject.item.dataset.source.name for reject in rejected)
    sources = {
        d.source.name: {
            "title": d.source.title,
            "licence": d.source.licence,
            "citation": d.source.citation,
            "url": d.source.url,
            "in": read_from[d.source.name],
            "kept": kept_of[d.source.name],
            "quarantined": lost[d.source.name],
        }
        for d in datasets
    }
    return {
        "images": {"in": len(items), "kept": len(kept), "quarantined": len(rejected)},
        "sources": sources,
        "licences": dict(Counter(images[index].item.licence for index in kept)),
        "kept": _nested(images, chosen, kept),
        "scales": _by_scale(Counter(str(chosen.scales[index]) for index in kept), rejected),
        "quarantine": {
            "stage": dict(Counter(reject.stage for reject in rejected)),
            "rule": dict(Counter(reject.problem.rule for reject in rejected)),
        },
        "duplicates": group_sizes(chosen.groups),
    }


def _nested(images: Sequence[Decoded], chosen: Selection, kept: Sequence[int]) -> dict[str, Any]:
    """Split -> source -> label -> scale -> images kept."""
    result: dict[str, Any] = {}
    for index in kept:
        source = images[index].item.dataset.source.name
        place = result.setdefault(chosen.splits[index], {}).setdefault(source, {})
        place = place.setdefault(chosen.labels[index], {})
        scale = str(chosen.scales[index])
        place[scale] = place.get(scale, 0) + 1
    return result


def _by_scale(kept: Counter[str], rejected: Sequence[Rejected]) -> dict[str, dict[str, int]]:
    """Scale -> in, kept, quarantined; `none` holds what was quarantined before it had a scale."""
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
