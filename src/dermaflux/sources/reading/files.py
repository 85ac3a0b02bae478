"""Listings of image files, and their join with the rows of CSV files. Never decodes an image.

Only of a file whose suffix says nothing are the first bytes read, to see whether it is an image.
What operating systems leave behind (``._x``, ``Thumbs.db``, ``__MACOSX``) is passed over.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dermaflux.core.file_names import (
    COMMON_SUFFIXES,
    IMAGE_SUFFIXES,
    READABLE_SUFFIXES,
    is_rounded,
    row_name,
    suffix_of,
    without_suffix,
)
from dermaflux.core.images import formats
from dermaflux.errors import quoted
from dermaflux.sources.adapter import Facts, Problem, Record, Split
from dermaflux.sources.reading.matching import Clash, match
from dermaflux.sources.reading.tables import Row

_LEFTOVERS = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"))
_LEFTOVER_FOLDERS = frozenset(
    ("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found")
)
_OTHER_FILES = (
    "txt csv tsv tab json jsonl xml yaml yml md rst html htm pdf log zip gz tar tgz bz2 xz 7z rar "
    "h5 hdf5 npy npz mat parquet feather pt pth safetensors onnx pkl py ipynb sh r rds xls xlsx "
    "ods doc docx ppt pptx db sqlite lock dvc mp4 mov avi"
)
_NOT_IMAGES = frozenset(f".{suffix}" for suffix in _OTHER_FILES.split())
"""Lower-case suffixes of files that are not opened to see whether they are images."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image that exists: a file, or a member of an HDF5 file."""

    name: str
    path: Path
    member: str | None = None


def is_image(path: str) -> bool:
    """Whether a file is an image to be accounted for: by its suffix, else by its first bytes."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in IMAGE_SUFFIXES:
        return True
    if suffix in _NOT_IMAGES:
        return False
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a named pipe would never end
            return False
        with open(path, "rb") as file:
            head = file.read(256)
    except OSError:
        return False
    return formats.is_image(head)


def _leftover(name: str) -> str | None:
    """How to call a file that an operating system or a program left behind; None for others."""
    if name.startswith("._"):
        return "._*"
    if name.startswith("~$"):
        return "~$*"
    if name == ".DS_Store" or name.lower() in _LEFTOVERS:
        return name.strip()
    return "hidden files" if name.startswith(".") else None


def is_leftover_folder(name: str) -> bool:
    """Whether a folder holds what an operating system or a program left behind."""
    return name.startswith(".") or name.lower() in _LEFTOVER_FOLDERS


def _raise(error: OSError) -> None:
    # A folder that this user may not open would be passed over, with all of its images.
    if not isinstance(error, FileNotFoundError):
        raise error


def walk_images(folder: Path, passed_over: Counter[str] | None = None) -> Iterator[Path]:
    """Image files at any depth, in a fixed order.

    `passed_over` receives what is no image of anybody: how many files by a word such as ``._*``,
    ``Thumbs.db`` or ``__MACOSX/``. Raises `OSError` when a folder cannot be listed.
    """
    for parent, folders, names in os.walk(folder, onerror=_raise):
        for name in [name for name in folders if is_leftover_folder(name)]:
            folders.remove(name)
            if passed_over is not None:
                inside = sum(len(files) for _, _, files in os.walk(os.path.join(parent, name)))
                passed_over["hidden files" if name.startswith(".") else f"{name}/"] += inside
        folders.sort()
        for name in sorted(names):
            if (leftover := _leftover(name)) is not None:
                if passed_over is not None:
                    passed_over[leftover] += 1
            elif is_image(os.path.join(parent, name)):
                yield Path(parent, name)


def _images_of(folder: Path) -> Iterator[str]:
    if folder.is_dir():
        with os.scandir(folder) as entries:
            for entry in entries:
                # A broken link is not a folder and stays in: decoding reports it.
                if _leftover(entry.name) is None and not entry.is_dir() and is_image(entry.path):
                    yield entry.path


def image_files(folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted by name; none when the folder is absent."""
    return sorted(Path(path) for path in _images_of(folder))


def has_images(folder: Path) -> bool:
    """Whether an image file lies directly in a folder."""
    return any(True for _ in _images_of(folder))


def by_stem(paths: Iterable[Path]) -> Iterator[ImageFile]:
    """Image files under their names without suffix."""
    return (ImageFile(without_suffix(path.name), path) for path in paths)


def own_names(paths: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Paths without their suffix, as text; of several with one name, JPEG and PNG have it.

    Files of other formats beside these keep their suffix, so that they take no image's name.
    """
    by_name: dict[str, list[Path]] = {}
    for path in paths:
        by_name.setdefault(without_suffix(path.as_posix()), []).append(path)
    for name, same in by_name.items():
        for path in same:
            alone = len(same) == 1 or suffix_of(path.name) in READABLE_SUFFIXES
            yield (name if alone else path.as_posix()), path


def join(
    images: Iterable[ImageFile],
    rows: Iterable[Row],
    column: str,
    interpret: Callable[[Row], Facts],
    split: Split,
    suffix: str = ".jpg",
) -> Iterator[Record]:
    """Match images to CSV rows by name = `column`; every image and every row is yielded once.

    `matching` says which spellings of a name match. A row that repeats a name is reported; when
    the repeats disagree, the image is reported too. A row without an image keeps its facts, so that
    a CSV alone can be counted.
    """
    listed = list(images)
    present = COMMON_SUFFIXES | {suffix_of(image.path.name) for image in listed}
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row_name(row.values[column], present), []).append(row)
    matches = match(
        [image.name for image in listed],
        {name: suffix_of(same[0].values[column]) for name, same in by_name.items()},
        lambda index: suffix_of(listed[index].path.name),
    )
    clashes_of_files: dict[int, Problem] = {}
    clashes_of_rows: dict[str, Problem] = {}
    for clash in matches.clashes:
        problem = _clash(clash, listed, by_name, column)
        clashes_of_files |= dict.fromkeys(clash.files, problem)
        clashes_of_rows |= dict.fromkeys(clash.rows, problem)
    for index, image in enumerate(listed):
        name = matches.rows[index]
        if name is None:
            problem = clashes_of_files.get(index, _SPARE if index in matches.spare else _NO_ROW)
            yield Record(image.name, image.path, None, split, Facts(problem=problem), image.member)
            continue
        first = by_name[name][0]
        yield Record(
            matches.loose.get(index, image.name),
            image.path,
            first.location,
            split,
            _agreed(by_name[name], interpret),
            image.member,
            first.values[column] if index in matches.rewritten else None,
        )
    seen = set(matches.rows)
    for name, same in by_name.items():
        for row in same[1:] if name in seen else same:
            if row is same[0] or not name:
                missing = clashes_of_rows.get(name) or _no_image(row, column, suffix)
                facts = replace(interpret(row), problem=missing)
            else:
                reason = f"{quoted(name)} is already in {same[0].location}; remove one of the rows"
                facts = Facts(problem=Problem("repeated-row", reason))
            yield Record(name, None, row.location, split, facts, None, row.values[column])


_NO_ROW = Problem("no-row", "no row of the CSV names this image; add the row or remove the image")


_SPARE = Problem(
    "no-row", "the row of its name means another file of that name; rename or remove one of them"
)


def _agreed(rows: Sequence[Row], interpret: Callable[[Row], Facts]) -> Facts:
    """What the rows of one image say; a problem when they disagree."""
    facts = interpret(rows[0])
    if any(interpret(other) != facts for other in rows[1:]):
        locations = " and ".join(row.location for row in rows)
        reason = f"{locations} disagree about this image; keep the right row"
        return replace(facts, problem=Problem("contradiction", reason))
    return facts


def _no_image(row: Row, column: str, suffix: str) -> Problem:
    value = row.values[column]
    if not value:
        return Problem("no-image", f"{row.location} has no {column}; fill in the image's name")
    if is_rounded(value):
        reason = (
            f"{row.location} names the image {quoted(value)}, a number that a spreadsheet has "
            "rounded; export the column as text"
        )
        return Problem("no-image", reason)
    fix = "download it" if suffix else "copy it into the folder or correct the name"
    file = value if suffix_of(value) else value + suffix
    return Problem("no-image", f"there is no image file {quoted(file)}; {fix}")


def _clash(
    clash: Clash, images: Sequence[ImageFile], by_name: Mapping[str, list[Row]], column: str
) -> Problem:
    """One sentence about names that fit several files, or files that fit several names."""

    def listed(texts: Sequence[str]) -> str:
        more = f" and {len(texts) - 2} more" if len(texts) > 2 else ""
        return f"{texts[0]} and {texts[1]}{more}" if len(texts) > 1 else texts[0]

    rows = listed([
        f"{by_name[name][0].location} ({quoted(by_name[name][0].values[column])})"
        for name in clash.rows
    ])  # fmt: skip
    files = listed([
        quoted(images[index].name + os.path.splitext(images[index].path.name)[1])
        for index in clash.files
    ])  # fmt: skip
    fix = (
        "write the file's path below the folder into the row, or rename one of the files"
        if len(clash.files) > 1
        else "keep the row that means it"
    )
    return Problem("ambiguous-name", f"{rows} may mean {files}; {fix}")
