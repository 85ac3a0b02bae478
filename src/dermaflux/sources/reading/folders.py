"""Folders as publishers, Kaggle and unpackers nest them. Reads folder listings only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from dermaflux.sources.adapter import Facts, Record, Split
from dermaflux.sources.reading.files import has_images, image_files, is_leftover_folder, own_names


def subfolders(folder: Path) -> list[Path]:
    """Folders directly in a folder, sorted by name, without links and leftovers."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(
            Path(entry.path)
            for entry in entries
            if entry.is_dir(follow_symlinks=False) and not is_leftover_folder(entry.name)
        )


def unwrapped(folder: Path, holds: Callable[[Path], object], only_its_name: bool = False) -> Path:
    """The folder inside `folder` that `holds` what is looked for, or `folder` where none does.

    Unpackers put a folder of the same name around what they unpack ("Extract all" of Windows),
    and Kaggle does when it packs anew. Followed is a folder of that name, or, unless
    `only_its_name`, the only folder there is: never one of several.
    """
    inner = folder
    while not holds(inner):
        children = subfolders(inner)
        same = [child for child in children if child.name.casefold() == inner.name.casefold()]
        if not same and not only_its_name:
            same = children
        if len(same) != 1:
            return folder
        inner = same[0]
    return inner


def nested_image_files(folder: Path) -> list[Path]:
    """Image files directly in a folder, or in the folder that an unpacker put inside it."""
    return image_files(unwrapped(folder, has_images))


def class_folders(root: Path, labels: Mapping[str, str], split: Split) -> Iterator[Record]:
    """Images of folders below `root` by label; ids are paths below it, since stems repeat.

    A folder may hold a second one of its name, as unpackers make it; ids are those without it.
    """
    for folder, label in labels.items():
        inner = root
        steps = folder.split("/")
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            inner = unwrapped(
                inner / step,
                lambda at, name=following: (at / name).is_dir() if name else has_images(at),  # type: ignore[misc]
                only_its_name=True,
            )
        for name, path in own_names(image_files(inner)):
            original = f"{folder}/{os.path.basename(name)}"
            yield Record(original, path, None, split, Facts(label=label))
