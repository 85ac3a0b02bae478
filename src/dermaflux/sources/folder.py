"""A team's own images in a folder tree whose folders are named after the label.

Reads images at any depth. The innermost folder that says benign or malignant (in any case, also as
a part such as ``Skin_Malignant``) gives the label, never the file name; below a folder called
``test``, images belong to the test part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from dermaflux.params import Own
from dermaflux.sources.adapter import Facts, Problem, Record, Source, Split
from dermaflux.sources.reading.files import walk_images

LABELS = {"benign": "benign", "malignant": "malignant", "indeterminate": "indeterminate"}


def vocabulary_of(own: Own) -> dict[str, str]:
    """Lower-case words and the labels they mean."""
    return LABELS | {word.lower(): label for word, label in own.labels.items()}


def label_of(folders: tuple[str, ...], words: Mapping[str, str]) -> str | Problem:
    """The label that the innermost telling folder names; a `Problem` when none or two."""
    for folder in reversed(folders):
        name = folder.lower()
        parts = re.findall(r"[a-z0-9]+", name)
        said = {words[part] for part in parts if part in words}
        if name in words:
            said = {words[name]}
        elif "non" in parts or "not" in parts:  # non-malignant need not mean benign
            said |= {"not"} if said else set()
        if len(said) > 1:
            reason = f"its folder {folder!r} says more than one thing; name it in labels"
            return Problem("ambiguous-folder", reason)
        if said:
            return said.pop()
    reason = "no folder above it says benign or malignant; name the folder or map it in labels"
    return Problem("no-label", reason)


def split_of(folders: tuple[str, ...], default: Split) -> Split:
    """`test` below a folder of that name."""
    return "test" if any(folder.lower() == "test" for folder in folders) else default


def source(own: Own) -> Source:
    """The adapter of one entry of `ingest.own` without a CSV file."""
    words = vocabulary_of(own)

    def read(root: Path) -> Iterator[Record]:
        for path in walk_images(root):
            place = path.relative_to(root)
            folders = place.parts[:-1]
            found = label_of(folders, words)
            facts = Facts(problem=found) if isinstance(found, Problem) else Facts(label=found)
            original = place.with_suffix("").as_posix()
            yield Record(original, path, None, split_of(folders, own.split), facts)

    return described(own, read)


def described(own: Own, read: object) -> Source:
    """What a source says about itself when a team brings it."""
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
        read=read,  # type: ignore[arg-type]
        mapping="ingest.own.labels",
    )
