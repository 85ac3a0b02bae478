"""Large files over a bad connection, and zip files from strangers.

`fetch` resumes by HTTP range requests (RFC 9110, section 14); `unpack` writes inside its folder
only and replaces nothing. Both leave a file under its name only when it is whole.
"""

from __future__ import annotations

import http.client
import shutil
import stat
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from dermaflux.errors import InputError
from dermaflux.progress import progress

_CHUNK = 1 << 20
_TRIES = 6  # in a row without a new byte
_SECONDS = 60.0  # without an answer
_MISSING = (401, 403, 404, 410)


def fetch(url: str, target: Path, work: Path, pause: float = 1.0) -> None:
    """Download `url` to `target`, going on from what an earlier call left in `work`.

    Waits `pause`, then twice as long each time, seconds between tries that bring nothing. Raises
    `InputError` when the file is not there, or when the connection stays cut.
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
                    f"{url} answers {error.code} {error.reason}; look for its new address or "
                    f"download it by hand to {target}"
                ) from None
            problem = f"the server answers {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            problem = str(error) or type(error).__name__
        tries = 0 if _size(partial) > before else tries + 1
        if tries >= _TRIES:
            raise InputError(
                f"{url} could not be downloaded in {_TRIES} tries ({problem}); run the command "
                "again, it goes on where it stopped"
            )
        time.sleep(pause * 2**tries)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(partial, target)
    _version(partial).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _version(partial: Path) -> Path:
    """Where the server's name for the version of a partial file is kept."""
    return partial.with_name(f"{partial.name}.version")


def _attempt(url: str, partial: Path) -> bool:
    """One connection; whether the file is whole afterwards."""
    have, version = _size(partial), _version(partial)
    request = urllib.request.Request(url, headers={"User-Agent": "dermaflux"})
    if have and version.exists():
        request.add_header("Range", f"bytes={have}-")
        # The rest is sent only if the file is still the same, else all of it.
        request.add_header("If-Range", version.read_text(encoding="utf-8"))
    try:
        answer = urllib.request.urlopen(request, timeout=_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send, or what is here is not a part of it
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return True
            partial.unlink()
            return False
        raise
    with answer:
        resumed = answer.status == 206
        if not resumed:
            have = 0
            name = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
            # A weak name does not promise equal bytes.
            if name and not name.startswith("W/"):
                version.write_text(name, encoding="utf-8")
            else:
                version.unlink(missing_ok=True)
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            partial.open("ab" if resumed else "wb") as file,
            progress(partial.name.strip(".").removesuffix(".part"), total or 0, have) as advance,
        ):
            while block := answer.read(_CHUNK):
                file.write(block)
                advance(len(block))
    return total is None or _size(partial) == total


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip file into `folder`; files that are there stay.

    Raises `InputError` when the zip file is damaged, wants to write outside `folder`, needs more
    space than there is, or holds another version of a file that is there.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [one for one in opened.infolist() if _wanted(one)]
            targets = [_inside(folder, member, archive) for member in members]
            _require_space(archive, folder, members)
            with progress(f"unpack {archive.name}", len(members)) as advance:
                for member, target in zip(members, targets, strict=True):
                    _extract(opened, member, target)
                    advance(1)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise InputError(f"{archive} is damaged ({error}); delete it and download again") from None


def _wanted(member: zipfile.ZipInfo) -> bool:
    return not member.is_dir() and not member.filename.startswith("__MACOSX/")


def _inside(folder: Path, member: zipfile.ZipInfo, archive: Path) -> Path:
    root = folder.resolve()
    target = (root / member.filename).resolve()
    link = stat.S_ISLNK(member.external_attr >> 16)
    if link or root not in target.parents:
        what = "is a link" if link else f"lies outside {folder}"
        raise InputError(
            f"{archive} holds {member.filename!r}, which {what}; do not trust this file and "
            "download it again from its publisher"
        )
    return target


def _require_space(archive: Path, folder: Path, members: list[zipfile.ZipInfo]) -> None:
    needed, free = sum(one.file_size for one in members), shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{archive} unpacks to {needed / 1e9:.1f} GB but {folder} has {free / 1e9:.1f} GB "
            "free; make room or name another folder"
        )


def _extract(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    if target.exists():
        if target.stat().st_size != member.file_size:
            raise InputError(
                f"{target} has {target.stat().st_size:,} bytes but {member.filename} of the "
                f"download has {member.file_size:,}; move one of them away"
            )
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.part")
    with opened.open(member) as packed, partial.open("wb") as file:
        shutil.copyfileobj(packed, file, _CHUNK)
    partial.rename(target)
