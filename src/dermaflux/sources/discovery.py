"""Which published datasets lie in the data folder, and what lies there that nobody reads.

Reads folder listings only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dermaflux.errors import InputError
from dermaflux.params import Own
from dermaflux.sources import folder
from dermaflux.sources.adapter import Source
from dermaflux.sources.reading import csv_table
from dermaflux.sources.reading.files import IMAGE_SUFFIXES, walk_images
from dermaflux.sources.registry import SOURCES


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


def _exists(root: Path, relative: str) -> bool:
    # Listed, not asked for: on macOS "train/Benign" would match "train/benign".
    for part in relative.split("/"):
        if not root.is_dir() or part not in os.listdir(root):
            return False
        root = root / part
    return True


def _matches(source: Source, root: Path, named: bool = False) -> bool:
    markers = source.markers + source.shared_markers if named else source.markers
    return any(_exists(root, marker) for marker in markers)


def _locate(data: Path, children: Sequence[Path], source: Source) -> Dataset | None:
    named = data / source.name
    if named in children:
        if not _matches(source, named, named=True):
            markers = ", ".join(source.markers + source.shared_markers)
            raise InputError(
                f"{named} holds none of {markers}; unpack {source.title} there as published "
                f"({source.url})"
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


def _brought(data: Path, children: Sequence[Path], own: Sequence[Own]) -> list[Dataset]:
    """The team's own datasets, each in the folder that the parameters name."""
    found: list[Dataset] = []
    for entry in own:
        root = data / entry.folder
        if root not in children:
            raise InputError(
                f"ingest.own {entry.name!r} names the folder {root}, which does not exist; copy "
                "the images there or correct the name"
            )
        taken = {dataset.source.name for dataset in found} | SOURCES.keys()
        if entry.name in taken or any(dataset.root == root for dataset in found):
            raise InputError(
                f"ingest.own {entry.name!r} with folder {entry.folder!r} repeats the name or the "
                "folder of another dataset; choose one that is free"
            )
        adapter = csv_table if entry.csv else folder
        found.append(Dataset(adapter.source(entry), root, (root,)))
    return found


def discover(
    data: Path, wanted: Sequence[str], own: Sequence[Own] = ()
) -> tuple[list[Dataset], list[Unread]]:
    """Datasets of `wanted` names, all that are found when empty, and what stays unread.

    A dataset is found in a folder of its adapter's name, in any other top folder that shows its
    published layout, or lying open in `data` itself; `own` ones in the folder they name. Raises
    `InputError` when `data` is missing, a wanted name is unknown or absent, or nothing is found.
    """
    if not data.is_dir():
        raise InputError(
            f"there is no data folder {data}; run `make data` for the phantom corpus or set the "
            "parameter data"
        )
    known_names = [*SOURCES, *(entry.name for entry in own)]
    for name in wanted:
        if name not in known_names:
            known = ", ".join(known_names)
            raise InputError(f"ingest.sources names {name!r}; known datasets are {known}")
    children = sorted(child for child in data.iterdir() if child.is_dir())
    brought = _brought(data, children, own)
    others = [child for child in children if all(child != d.root for d in brought)]
    found = [d for source in SOURCES.values() if (d := _locate(data, others, source))]
    found += brought
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
