"""Folder listings, and their join with the rows of CSV files. Never opens an image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dermaflux.sources.adapter import Facts, Problem, Record, Split
from dermaflux.sources.reading.tables import Row

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"))
"""Lower-case suffixes that make a file an image to be accounted for."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image that exists: a file, or a member of an HDF5 file."""

    name: str
    path: Path
    member: str | None = None


def walk_images(folder: Path) -> Iterator[Path]:
    """Image files at any depth, in a fixed order."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield Path(parent, name)


def image_files(folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted by name; none when the folder is absent."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        # A broken link is not a folder and stays in: decoding reports it.
        return sorted(
            Path(entry.path)
            for entry in entries
            if os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and not entry.is_dir()
        )


def by_stem(paths: Iterable[Path]) -> Iterator[ImageFile]:
    """Image files under their stems."""
    return (ImageFile(path.stem, path) for path in paths)


def without_suffix(name: str) -> str:
    """An image's name as CSV files give it, with or without its suffix."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def join(
    images: Iterable[ImageFile],
    rows: Iterable[Row],
    column: str,
    interpret: Callable[[Row], Facts],
    split: Split,
    suffix: str = ".jpg",
) -> Iterator[Record]:
    """Match images to CSV rows by name = `column`; every image and every row is yielded once.

    A row that repeats an id is reported; when the repeats disagree, the image is reported too. A
    row without an image keeps its facts, so that a CSV alone can be counted.
    """
    by_id: dict[str, list[Row]] = {}
    for row in rows:
        by_id.setdefault(without_suffix(row.values[column]), []).append(row)
    seen: set[str] = set()
    for image in images:
        matches = by_id.get(image.name, [])
        if not matches:
            reason = "no row of the CSV names this image; add the row or remove the image"
            facts = Facts(problem=Problem("no-row", reason))
            yield Record(image.name, image.path, None, split, facts, image.member)
            continue
        first = matches[0]
        facts = interpret(first)
        if any(interpret(other) != facts for other in matches[1:]):
            locations = " and ".join(match.location for match in matches)
            reason = f"{locations} disagree about this image; keep the right row"
            facts = replace(facts, problem=Problem("contradiction", reason))
        yield Record(image.name, image.path, first.location, split, facts, image.member)
        seen.add(image.name)
    for name, matches in by_id.items():
        for row in matches[1:] if name in seen else matches:
            if row is matches[0]:
                missing = Problem("no-image", f"there is no image file {name}{suffix}; download it")
                facts = replace(interpret(row), problem=missing)
            else:
                reason = f"{name} is already in {matches[0].location}; remove one of the rows"
                facts = Facts(problem=Problem("repeated-row", reason))
            yield Record(name, None, row.location, split, facts)


def class_folders(root: Path, labels: Mapping[str, str], split: Split) -> Iterator[Record]:
    """Images of folders below `root` by label; ids are paths below it, since stems repeat."""
    for folder, label in labels.items():
        for path in image_files(root / folder):
            original = path.relative_to(root).with_suffix("").as_posix()
            yield Record(original, path, None, split, Facts(label=label))
