"""Which datasets are in the data folder, and what is there that no adapter reads.

Reads folder listings only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dermaflux.core.file_names import letters_and_digits
from dermaflux.errors import InputError, quoted
from dermaflux.params import OwnDataset
from dermaflux.sources import folder
from dermaflux.sources.adapter import Source
from dermaflux.sources.reading import csv_table
from dermaflux.sources.reading.files import image_files, is_image, is_leftover_folder, walk_images
from dermaflux.sources.reading.folders import subfolders
from dermaflux.sources.registry import SOURCES

DVC_CACHE = "/files/md5/"
"""Part of the path of every file in DVC's cache, to which its links in a data folder lead."""
NO_ADAPTER = (
    "no adapter reads it; add an entry to ingest.own with this folder and a csv, or with folders "
    "called benign and malignant in it (docs/data.md)"
)


@dataclass(frozen=True)
class Dataset:
    """A dataset in the data folder; its images are below `folders`."""

    source: Source
    root: Path
    folders: tuple[Path, ...]


@dataclass(frozen=True)
class UnreadPart:
    """A part of the data folder that no chosen adapter reads."""

    name: str
    images: int
    reason: str


def _exists(root: Path, relative: str) -> bool:
    # Listed instead of `exists`: on macOS "train/Benign" would match "train/benign".
    for depth, part in enumerate(relative.split("/")):
        present = os.listdir(root) if root.is_dir() else []
        if depth and part not in present and root.name in present:  # an unpacker's second folder
            root = root / root.name
            present = os.listdir(root) if root.is_dir() else []
        if part not in present:
            return False
        root = root / part
    return True


def _matches(source: Source, root: Path, named: bool = False) -> bool:
    markers = source.markers + source.shared_markers if named else source.markers
    return any(_exists(root, marker) for marker in markers)


def _locate(data: Path, children: Sequence[Path], source: Source) -> Dataset | None:
    """Where one published dataset is; `children` are the folders that it may be in."""
    named = data / source.name
    if named in children:
        if not _matches(source, named, named=True):
            if inner := _wrapped([named], source, named=True):
                return inner
            markers = ", ".join(source.markers + source.shared_markers)
            raise InputError(
                f"{named} holds none of {markers}; unpack {source.title} there as published "
                f"({source.url}), or remove that folder"
            )
        return Dataset(source, named, (named,))
    # Not the folders of `ingest.own`, which are the team's whatever they are called.
    names = {child.name for child in children}
    present = {name for name in os.listdir(data) if name in names or not (data / name).is_dir()}
    here = [marker for marker in source.markers if marker.split("/")[0] in present]
    if any(_exists(data, marker) for marker in here):
        claimed = tuple(data / name for name in source.claims if name in present)
        return Dataset(source, data, claimed)
    roots = [
        child
        for child in children
        if child.name not in SOURCES
        and _matches(source, child, named=letters_and_digits(child.name) == source.name)
    ]
    if len(roots) > 1:
        raise InputError(
            f"{roots[0]} and {roots[1]} both look like {source.title}; keep one of them"
        )
    return Dataset(source, roots[0], (roots[0],)) if roots else None


def _wrapped(folders: Iterable[Path], source: Source, named: bool = False) -> Dataset | None:
    """A dataset one folder deeper than usual; None where several folders could be it."""
    roots = [
        inner
        for folder in folders
        for inner in subfolders(folder)
        if _matches(source, inner, named or inner.name == source.name)
    ]
    return Dataset(source, roots[0], (roots[0],)) if len(roots) == 1 else None


def _all_located(data: Path, children: Sequence[Path]) -> list[Dataset]:
    """The published datasets of the data folder, in the order of `SOURCES`."""
    located = {name: _locate(data, children, source) for name, source in SOURCES.items()}
    used = {folder for dataset in located.values() if dataset for folder in dataset.folders}
    used |= {folder.parent for folder in used}
    free = [child for child in children if child not in used and child.name not in SOURCES]
    for name, dataset in located.items():
        located[name] = dataset or _wrapped(free, SOURCES[name])
    return [dataset for dataset in located.values() if dataset]


def _own_datasets(data: Path, children: Sequence[Path], own: Sequence[OwnDataset]) -> list[Dataset]:
    """The team's own datasets, each in the folder that the parameters name."""
    datasets: list[Dataset] = []
    for number, entry in enumerate(own):
        root = data / entry.folder
        if root not in children:
            raise InputError(
                f"ingest.own {entry.name!r} names the folder {quoted(str(root))}, which does not "
                "exist; copy the images there or correct the name"
                + _folders(children, entry.folder)
            )
        if entry.name in SOURCES:
            raise InputError(
                f"ingest.own {entry.name!r} has the name of a published dataset; choose another, "
                f"such as own-{entry.name}"
            )
        for other in own[:number]:
            _check_apart(entry, other)
        adapter = csv_table if entry.csv else folder
        datasets.append(Dataset(adapter.source(entry), root, (root,)))
    return datasets


def _check_apart(entry: OwnDataset, other: OwnDataset) -> None:
    """Refuse two entries of one name, and two that would read the same images.

    Two CSV files of a folder, or two image columns of one CSV file (a dermoscopic and a clinical
    photograph of each lesion), name different images; see `corpus.shared_folders`.
    """
    both = f"ingest.own {other.name!r} and {entry.name!r} both read the folder"
    if entry.folder == other.folder and (entry.csv is None or other.csv is None):
        without = entry.name if entry.csv is None else other.name
        raise InputError(
            f"{both} {quoted(entry.folder)}, and without csv {without!r} reads every image of it; "
            "keep one of the entries, or give each a csv"
        )
    if entry.folder == other.folder and _names_of_images(entry) == _names_of_images(other):
        table, column = _names_of_images(entry)
        raise InputError(
            f"{both} {quoted(entry.folder)} by the column {quoted(column)} of {quoted(table)}, so "
            "every image would be read twice; keep one of the entries, with all its columns"
        )
    if entry.name == other.name:
        raise InputError(
            f"two entries of ingest.own are called {entry.name!r}, and image ids begin with that "
            "name; give each entry its own"
        )


def _names_of_images(entry: OwnDataset) -> tuple[str, str]:
    """CSV file and column in which an entry names its images."""
    return os.path.normpath(entry.csv or ""), entry.columns.image if entry.columns else ""


def _check_links(data: Path, dataset: Dataset) -> None:
    """Refuse a linked folder or table anywhere in a dataset's folders.

    DVC follows a link that is itself a dependency, as the data folder may be, and none below it:
    the hash in dvc.lock covers nothing of a linked folder, and does not change with a linked file
    (measured with DVC 3). Linked images are left out one by one, see `corpus.ingest`.
    """
    inside = os.path.realpath(data) + os.sep
    links = [link for folder in dataset.folders for link in _links(folder, inside)]
    if links:
        first, more = links[0], f" ({len(links) - 1:,} more)" if len(links) > 1 else ""
        raise InputError(
            f"{quoted(first)} is a link to {quoted(os.path.realpath(first))}{more}, and DVC hashes "
            "nothing behind a link, so that new or changed files there would stay unseen; copy it "
            "(or fetch it with `dvc import-url`), or set data to the real folder that holds the "
            "datasets"
        )


def _links(folder: Path, inside: str) -> list[str]:
    """Links to folders, and to tables that are not `inside` the data folder, in a fixed order."""
    if folder.is_symlink():
        return [] if DVC_CACHE in os.path.realpath(folder) else [str(folder)]
    links, waiting = [], [str(folder)] * folder.is_dir()
    while waiting:
        # Asks the file system for nothing but listings: a network drive takes long for each file.
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if not entry.is_symlink():
                    waiting += [entry.path] * entry.is_dir()
                elif entry.is_dir() or not _covered(entry, inside):
                    links.append(entry.path)
    return sorted(links)


def _covered(link: os.DirEntry[str], inside: str) -> bool:
    """Whether a link to a file is no matter here: an image, or to a file that DVC hashes."""
    if is_image(link.path):
        return True
    target = os.path.realpath(link.path)
    return target.startswith(inside) or DVC_CACHE in target


def discover(
    data: Path, wanted: Sequence[str], own: Sequence[OwnDataset] = ()
) -> tuple[list[Dataset], list[UnreadPart]]:
    """Datasets of the `wanted` names, all there are when empty, and what stays unread.

    A dataset is looked for in a folder of its name, in any other top-level folder that has its
    published layout, directly in `data`, and then one folder deeper where only one folder can be
    it; `own` ones in the folder they name. Raises
    `InputError` when `data` is missing, a wanted name is unknown or absent, or none is there.
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
            same = [
                other
                for other in known_names
                if letters_and_digits(other) == letters_and_digits(name)
            ]
            hint = f", which may mean {same[0]!r}" if same else ""
            raise InputError(f"ingest.sources names {name!r}{hint}; known datasets are {known}")
    children = sorted(child for child in data.iterdir() if child.is_dir())
    named = [data / entry.folder for entry in own]
    # A disk's lost+found may not even be listed.
    children = [c for c in children if c in named or not is_leftover_folder(c.name)]
    own_datasets = _own_datasets(data, children, own)
    others = [child for child in children if all(child != d.root for d in own_datasets)]
    datasets = _all_located(data, others) + own_datasets
    names = {dataset.source.name for dataset in datasets}
    for name in wanted:
        if name not in names:
            raise InputError(
                f"ingest.sources names {name!r} but {data} does not hold it; unpack it into "
                f"{data / name} or take it off the list"
            )
    if not datasets:
        raise InputError(
            f"{quoted(str(data))} holds none of the datasets {', '.join(SOURCES)}; unpack one into "
            f"a folder of its name, or name your own images in ingest.own{_folders(children)}"
        )
    chosen = [d for d in datasets if not wanted or d.source.name in wanted]
    for dataset in chosen:
        _check_links(data, dataset)
    return chosen, _unread(data, children, datasets, chosen)


def _folders(children: Sequence[Path], like: str = "") -> str:
    """The folders that an entry of `ingest.own` could name, as an addition to a sentence."""
    children = sorted(
        children, key=lambda child: letters_and_digits(child.name) != letters_and_digits(like)
    )
    names = ", ".join(quoted(child.name) for child in children[:3])
    return f" (folders there: {names}{' and others' if len(children) > 3 else ''})" if names else ""


def _unread(
    data: Path, children: Sequence[Path], datasets: Sequence[Dataset], chosen: Sequence[Dataset]
) -> list[UnreadPart]:
    owner = {folder: dataset for dataset in datasets for folder in dataset.folders}
    parts = []
    for child in children:
        dataset = owner.get(child)
        if dataset in chosen and dataset is not None:
            continue
        reason = NO_ADAPTER if dataset is None else "ingest.sources leaves it out"
        inside = [folder for folder in owner if child in folder.parents]
        if inside and any(owner[folder] not in chosen for folder in inside):
            reason = "ingest.sources leaves it out"
        read = [folder for folder in inside if owner[folder] in chosen]
        images = sum(1 for path in walk_images(child) if not any(f in path.parents for f in read))
        if images:
            parts.append(UnreadPart(child.name, images, reason))
    loose = sum(1 for path in image_files(data) if path.is_file())
    if loose:
        parts.append(UnreadPart(".", loose, "outside every dataset's folder"))
    return parts
