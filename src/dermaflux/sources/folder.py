"""A team's own images in a folder tree whose folders are named after the label.

Reads images at any depth. The innermost folder that says benign or malignant (in any case, also as
a part such as ``Skin_Malignant``) gives the label, never the file name; below a folder called
``test``, images belong to the test part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from dermaflux.params import OwnDataset
from dermaflux.sources.adapter import Facts, Problem, Record, Source, Split
from dermaflux.sources.reading.files import walk_images

LABELS = {"benign": "benign", "malignant": "malignant", "indeterminate": "indeterminate"}


def labels_of(own: OwnDataset) -> dict[str, str]:
    """Lower-case words and the labels they mean."""
    return LABELS | {word.lower(): label for word, label in own.labels.items()}


def label_of(folders: tuple[str, ...], words: Mapping[str, str]) -> str | Problem:
    """The label that the innermost folder with a label names; a `Problem` when none or two."""
    for folder in reversed(folders):
        name = folder.lower()
        parts = re.findall(r"[a-z0-9]+", name)
        labels = {words[part] for part in parts if part in words}
        if name in words:
            labels = {words[name]}
        elif "non" in parts or "not" in parts:  # non-malignant need not mean benign
            labels |= {"not"} if labels else set()
        if len(labels) > 1:
            reason = f"its folder {folder!r} says more than one thing; name it in labels"
            return Problem("ambiguous-folder", reason)
        if labels:
            return labels.pop()
    reason = "no folder above it says benign or malignant; name the folder or map it in labels"
    return Problem("no-label", reason)


def split_of(folders: tuple[str, ...], default: Split) -> Split:
    """`test` below a folder of that name."""
    return "test" if any(folder.lower() == "test" for folder in folders) else default


def source(own: OwnDataset) -> Source:
    """The adapter of one entry of `ingest.own` without a CSV file."""
    words = labels_of(own)

    def read(root: Path) -> Iterator[Record]:
        for path in walk_images(root):
            relative = path.relative_to(root)
            folders = relative.parts[:-1]
            label = label_of(folders, words)
            facts = Facts(problem=label) if isinstance(label, Problem) else Facts(label=label)
            original = relative.with_suffix("").as_posix()
            yield Record(original, path, None, split_of(folders, own.split), facts)

    return own_source(own, read)


def own_source(own: OwnDataset, read: Callable[[Path], Iterator[Record]]) -> Source:
    """A team's own dataset as a source, with what the parameters say about it."""
    return Source(
        name=own.name,
        title=own.name,
        licence=own.licence,
        modality=own.modality,
        citation="own images",
        url="",
        published_scale=own.scale,
        markers=(),
        claims=(),
        read=read,
        mapping="ingest.own.labels",
    )
