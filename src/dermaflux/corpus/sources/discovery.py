"""Which published datasets lie in the data folder, and what lies there that nobody reads.

Reads folder listings only. `SOURCES` is the register of adapters.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dermaflux.corpus.sources import isic2019, isic2020, kaggle1, kaggle2
from dermaflux.corpus.sources.adapter import IMAGE_SUFFIXES, Source
from dermaflux.errors import InputError

SOURCES = {module.SOURCE.name: module.SOURCE for module in (isic2019, isic2020, kaggle1, kaggle2)}


@dataclass(frozen=True)
class Dataset:
    """A dataset found in the data folder; its images lie below `folders`."""

    source: Source
    root: Path
    folders: tuple[Path, ...]


@dataclass(frozen=True)
class Unread:
    """A part of the data folder that no chosen adapter reads."""

    name: str
    images: int
    reason: str


def walk_images(folder: Path) -> Iterator[Path]:
    """Image files at any depth, in a fixed order."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield Path(place, name)


def _exists(root: Path, relative: str) -> bool:
    # Listed, not asked for: on macOS "train/Benign" would match "train/benign".
    for part in relative.split("/"):
        if not root.is_dir() or part not in os.listdir(root):
            return False
        root = root / part
    return True


def _matches(source: Source, root: Path) -> bool:
    return any(_exists(root, marker) for marker in source.markers)


def _locate(data: Path, children: Sequence[Path], source: Source) -> Dataset | None:
    named = data / source.name
    if named in children:
        if not _matches(source, named):
            raise InputError(
                f"{named} holds none of {', '.join(source.markers)}; unpack {source.title} there "
                f"as published ({source.url})"
            )
        return Dataset(source, named, (named,))
    if _matches(source, data):
        present = set(os.listdir(data))
        claimed = tuple(data / name for name in source.claims if name in present)
        return Dataset(source, data, claimed)
    roots = [child for child in children if child.name not in SOURCES and _matches(source, child)]
    if len(roots) > 1:
        raise InputError(
            f"{roots[0]} and {roots[1]} both look like {source.title}; keep one of them"
        )
    return Dataset(source, roots[0], (roots[0],)) if roots else None


def discover(data: Path, wanted: Sequence[str]) -> tuple[list[Dataset], list[Unread]]:
    """Datasets of `wanted` names, all that are found when empty, and what stays unread.

    A dataset is found in a folder of its adapter's name, in any other top folder that shows its
    published layout, or lying open in `data` itself. Raises `InputError` when `data` is missing,
    a wanted name is unknown or absent, or nothing is found.
    """
    if not data.is_dir():
        raise InputError(
            f"there is no data folder {data}; run `make data` for the phantom corpus or set the "
            "parameter data"
        )
    for name in wanted:
        if name not in SOURCES:
            known = ", ".join(SOURCES)
            raise InputError(f"ingest.sources names {name!r}; known datasets are {known}")
    children = sorted(child for child in data.iterdir() if child.is_dir())
    found = [d for source in SOURCES.values() if (d := _locate(data, children, source))]
    names = {dataset.source.name for dataset in found}
    for name in wanted:
        if name not in names:
            raise InputError(
                f"ingest.sources names {name!r} but {data} does not hold it; unpack it into "
                f"{data / name} or take it off the list"
            )
    if not found:
        raise InputError(
            f"{data} holds none of the datasets {', '.join(SOURCES)}; unpack one into a folder of "
            "its name"
        )
    chosen = [d for d in found if not wanted or d.source.name in wanted]
    return chosen, _unread(data, children, found, chosen)


def _unread(
    data: Path, children: Sequence[Path], found: Sequence[Dataset], chosen: Sequence[Dataset]
) -> list[Unread]:
    owner = {folder: dataset for dataset in found for folder in dataset.folders}
    result = []
    for child in children:
        dataset = owner.get(child)
        if dataset in chosen and dataset is not None:
            continue
        reason = "no adapter reads it" if dataset is None else "ingest.sources leaves it out"
        if images := sum(1 for _ in walk_images(child)):
            result.append(Unread(child.name, images, reason))
    loose = sum(1 for p in data.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if loose:
        result.append(Unread(".", loose, "outside every dataset's folder"))
    return result
