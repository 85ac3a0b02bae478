"""Which images are left out before any is decoded: no label, a shared name, no licence."""

from __future__ import annotations

import os
from collections.abc import Sequence

from dermaflux.core.vocabulary import LABELS
from dermaflux.corpus.splitting.records import Item, Rejection
from dermaflux.sources.adapter import Problem
from dermaflux.sources.discovery import DVC_CACHE


def screen(items: Sequence[Item], licences: Sequence[str]) -> tuple[list[Item], list[Rejection]]:
    """Images with a label, and all other items; of equal ids the first location stays."""
    usable: list[Item] = []
    rejections: list[Rejection] = []
    seen: dict[str, str] = {}
    for item in items:
        problem = item.record.facts.problem
        if problem is None and not _is_text(item.image_id):
            # Zip files of older Windows; neither Parquet nor CSV can hold such a name.
            reason = "its name or a folder's is not valid Unicode; rename it, as `convmv` does"
            problem = Problem("file-name", reason)
        if problem is None and item.image_id in seen:
            first = seen[item.image_id]
            problem = Problem("repeated-id", f"{first} has the same name; rename one of the files")
        if problem is None and item.record.facts.label not in LABELS:
            problem = Problem("no-label", "nothing says whether it is benign; add its label")
        if problem is None and licences and item.licence not in licences:
            reason = f"its licence {item.licence} is not among ingest.licences; add it there"
            problem = Problem("licence", reason)
        if problem is None and _leads_outside(item):
            reason = "it is a link out of the dataset's folder; copy the file into it"
            problem = Problem("outside-folder", reason)
        if problem is not None:
            rejections.append(Rejection(item, "source", problem))
            continue
        seen[item.image_id] = item.location
        usable.append(item)
    return usable, rejections


def _is_text(name: str) -> bool:
    """Whether a file's name can be written as text: other bytes come as halves of surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _leads_outside(item: Item) -> bool:
    """Whether the file is a link to something that the hash of the data folder does not cover."""
    path, root = str(item.record.path), os.path.realpath(item.dataset.root)
    if not os.path.islink(path):
        return False
    target = os.path.realpath(path)
    return not target.startswith(root + os.sep) and DVC_CACHE not in target
