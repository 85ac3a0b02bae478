"""Large files over a bad connection, and zip files that nobody vouches for.

`fetch` resumes by HTTP range requests (RFC 9110, section 14); `unpack` writes inside its folder
only and replaces nothing. Both leave a file under its name only when it is whole.
"""

from __future__ import annotations

import http.client
import lzma
import shutil
import stat
import struct
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path

from dermaflux.errors import InputError, one_line, quoted
from dermaflux.progress import progress

_CHUNK = 1 << 20
_UNPACKING = ".unpacking.part"
_LONGEST_NAME = 255  # bytes
_TRIES = 6  # in a row that bring no byte
_SECONDS = 60.0  # to wait for a response
_MISSING = (401, 403, 404, 410)
_DAMAGED = (*(zipfile.BadZipFile, EOFError, ValueError, zlib.error, lzma.LZMAError, struct.error),)
"""What reading a damaged zip archive raises."""


def fetch(url: str, target: Path, work: Path, pause: float = 1.0) -> None:
    """Download `url` to `target`, resuming from what an earlier call left in `work`.

    Waits `pause` seconds, then twice as long each time, between tries that bring no byte. Raises
    `InputError` when the server does not have the file, or when the connection stays broken.
    """
    if target.exists():
        return
    partial = work / f".{target.name}.part"
    tries = 0
    while True:
        before = _size(partial)
        try:
            if _attempt(url, partial):
                break
            problem = f"it ended after {_size(partial):,} bytes"
        except urllib.error.HTTPError as error:
            if error.code in _MISSING:
                raise InputError(
                    f"the server answers {error.code} {error.reason} for {url}; look for its "
                    f"new address or download it by hand to {target}"
                ) from None
            problem = f"the server answers {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            problem = str(error) or type(error).__name__
        tries = 0 if _size(partial) > before else tries + 1
        if tries >= _TRIES:
            raise InputError(
                f"{url} could not be downloaded in {_TRIES} tries ({problem}); run the command "
                "again to resume it"
            )
        time.sleep(pause * 2**tries)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(partial, target)
    _version(partial).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _version(partial: Path) -> Path:
    """File with the entity tag of a partial file: the server's name for its version."""
    return partial.with_name(f"{partial.name}.version")


def _attempt(url: str, partial: Path) -> bool:
    """One connection; whether the file is complete afterwards."""
    size, version = _size(partial), _version(partial)
    request = urllib.request.Request(url, headers={"User-Agent": "dermaflux"})
    if size and version.exists():
        request.add_header("Range", f"bytes={size}-")
        # The rest is sent only if the file is still the same, else all of it.
        request.add_header("If-Range", version.read_text(encoding="utf-8"))
    try:
        # An address of `sources`, and a redirect leads to http, https or ftp alone: never a file.
        response = urllib.request.urlopen(request, timeout=_SECONDS)  # nosec B310
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send, or the partial file is not a part of it
            if error.headers.get("Content-Range") == f"bytes */{size}":
                return True
            partial.unlink()
            return False
        raise
    with response:
        resumed = response.status == 206
        if not resumed:
            size = 0
            tag = response.headers.get("ETag") or response.headers.get("Last-Modified")
            # A weak tag does not promise equal bytes.
            if tag and not tag.startswith("W/"):
                version.write_text(tag, encoding="utf-8")
            else:
                version.unlink(missing_ok=True)
        length = response.headers.get("Content-Length")
        total = size + int(length) if length else None
        with (
            partial.open("ab" if resumed else "wb") as file,
            progress(partial.name.strip(".").removesuffix(".part"), total or 0, size) as advance,
        ):
            while block := response.read(_CHUNK):
                file.write(block)
                advance(len(block))
    return total is None or _size(partial) == total


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip file into `folder`; existing files stay as they are.

    Raises `InputError` when the zip file is damaged, would write outside `folder`, needs more
    space than there is, or holds another version of an existing file.
    """
    try:
        with zipfile.ZipFile(archive) as zip_file:
            members = [member for member in zip_file.infolist() if _wanted(member)]
            targets = [_target_inside(folder, member, archive) for member in members]
            _require_space(archive, folder, members)
            with progress(f"unpack {archive.name}", len(members)) as advance:
                for member, target in zip(members, targets, strict=True):
                    _extract(zip_file, member, target)
                    advance(1)
    except RuntimeError as error:  # a password, or a compression method that Python lacks
        raise InputError(
            f"{archive} cannot be unpacked here ({one_line(error, 200)}); unpack it by hand"
        ) from None
    except _DAMAGED as error:
        raise InputError(
            f"{archive} is damaged ({one_line(error, 200)}); delete it and download again"
        ) from None


def _wanted(member: zipfile.ZipInfo) -> bool:
    return not member.is_dir() and not member.filename.startswith("__MACOSX/")


def _target_inside(folder: Path, member: zipfile.ZipInfo, archive: Path) -> Path:
    longest = max(member.filename.split("/"), key=lambda part: len(part.encode()))
    if len(longest.encode()) > _LONGEST_NAME:
        raise InputError(
            f"{archive} holds a file with the name {quoted(longest)} of {len(longest.encode())} "
            f"bytes, and a disk stores at most {_LONGEST_NAME}; unpack it by hand under a shorter "
            "name"
        )
    root = folder.resolve()
    target = (root / member.filename).resolve()
    link = stat.S_ISLNK(member.external_attr >> 16)
    if link or root not in target.parents:
        what = "is a link" if link else f"lies outside {folder}"
        raise InputError(
            f"{archive} holds {quoted(member.filename)}, which {what}; do not trust this file and "
            "download it again from its publisher"
        )
    return target


def _require_space(archive: Path, folder: Path, members: list[zipfile.ZipInfo]) -> None:
    needed, free = sum(member.file_size for member in members), shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{archive} unpacks to {needed / 1e9:.1f} GB but {folder} has {free / 1e9:.1f} GB "
            "free; make room or name another folder"
        )


def _extract(zip_file: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    if target.exists():
        if target.stat().st_size != member.file_size:
            raise InputError(
                f"{one_line(target)} has {target.stat().st_size:,} bytes but that file of the "
                f"download has {member.file_size:,}; move one of them away"
            )
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(_UNPACKING)  # whose name is short, however long that of the file
    try:
        with zip_file.open(member) as packed, partial.open("wb") as file:
            shutil.copyfileobj(packed, file, _CHUNK)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.rename(target)
