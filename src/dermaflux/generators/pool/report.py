"""Counts of the synthetic pool and the table of what was left out of it: reports/synthesize/.

Reads labels or diagnoses of the pool; writes counts.json and quarantine.csv.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermaflux.core import table
from dermaflux.core.files import atomic_folder, write_json

COUNTS = "counts.json"
QUARANTINE = "quarantine.csv"


@dataclass(frozen=True)
class Refused:
    """One file that is not in the pool."""

    file: str
    """Relative to the folder of released images."""
    rule: str
    reason: str


def write(
    pool: Path,
    folder: Path,
    refused: Sequence[Refused],
    counts: dict[str, Any] | None = None,
    column: str = "label",
) -> None:
    """Write both files; `counts` tell how many images the pool was chosen from.

    Images are counted by the value of `column`: `label`, or `diagnosis` where that was asked for.
    """
    labels = table.metadata(pool, [column])[column].value_counts().sort_index()
    content = {
        "images": {str(label): int(count) for label, count in labels.items()},
        "quarantined": dict(sorted(Counter(refusal.rule for refusal in refused).items())),
        **(counts or {}),
    }
    with atomic_folder(folder) as partial:
        write_json(partial / COUNTS, content)
        with (partial / QUARANTINE).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["file", "rule", "reason"])
            for refusal in sorted(refused, key=lambda refusal: (refusal.file, refusal.rule)):
                writer.writerow([refusal.file, refusal.rule, refusal.reason])
