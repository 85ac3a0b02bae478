"""A zip archive of images: read member by member into memory, never unpacked to a disk.

So no name of a member can lead out of a folder. Sizes are checked before anything is read.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from dermaflux.core.images import ImageError
from dermaflux.errors import InputError, quoted

_MAXIMUM_BYTES = 200_000_000  # of one member; 100 megapixels as PNG
_MAXIMUM_RATIO = 200  # of a member's size to what it takes in the archive; images hardly shrink
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def is_zip(path: Path) -> bool:
    """Whether a file begins, or is called, like a zip archive."""
    try:
        with path.open("rb") as file:
            return file.read(4) in (b"PK\3\4", b"PK\5\6") or path.suffix.lower() == ".zip"
    except OSError:
        return False


def names(path: Path) -> list[str]:
    """Names of the files in an archive, as in `members`."""
    with _opened(path) as archive:
        return sorted(_entries(path, archive))


def members(path: Path, wanted: set[str] | None) -> Iterator[tuple[str, bytes | ImageError]]:
    """(name, bytes or why there are none) of the files in an archive, ordered by name.

    Names have forward slashes and no `.` or `..`; a repeated one gets a number. Only `wanted` names
    when given. Raises `InputError` for a damaged or encrypted archive.
    """
    with _opened(path) as archive:
        entries = _entries(path, archive)
        for name in sorted(entries):
            if wanted is None or name in wanted:
                yield name, _read(archive, entries[name])


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, EOFError) as error:
        detail = quoted(" ".join(str(error).split()))
        raise InputError(
            f"{quoted(str(path))} is not a whole zip archive ({detail}); download it again"
        ) from None


def _entries(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The archive's files by their names."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        if entry.is_dir():
            continue
        if entry.flag_bits & _ENCRYPTED:
            raise InputError(
                f"{quoted(str(path))} is encrypted; unpack it with its password and name the folder"
            )
        parts = PurePosixPath(entry.filename.replace("\\", "/")).parts
        name = "/".join(part for part in parts if part not in ("/", ".", ".."))
        stem, dot, suffix = name.rpartition(".")
        number = 1
        while name in entries:
            number += 1
            name = f"{stem}#{number}{dot}{suffix}"
        entries[name] = entry
    if sum(entry.compress_size for entry in entries.values()) > path.stat().st_size:
        raise InputError(
            f"the members of {quoted(str(path))} overlap, as in a zip bomb; download it again"
        )
    return entries


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes | ImageError:
    size = entry.file_size
    if size > _MAXIMUM_BYTES or size > max(entry.compress_size, 5000) * _MAXIMUM_RATIO:
        reason = f"the member unpacks to {size:,} bytes, more than an image; remove it"
        return ImageError("too-large", reason)
    if entry.compress_type not in _METHODS:
        reason = f"the member is compressed by method {entry.compress_type}; unpack the archive"
        return ImageError("damaged", reason)
    try:
        return archive.read(entry)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        detail = quoted(" ".join(str(error).split()))
        reason = f"the member cannot be unpacked ({detail}); download the archive again"
        return ImageError("damaged", reason)
