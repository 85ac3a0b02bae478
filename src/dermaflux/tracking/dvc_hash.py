"""The hash that DVC gives a file or folder, without DVC."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from pathlib import Path

_SETTLED_NANOSECONDS = 2_000_000_000


def dvc_hash(path: Path) -> str:
    """The hash DVC writes to `dvc.lock` for a file, or with suffix `.dir` for a folder.

    A folder's hash is the md5 of DVC's sorted JSON listing of its files
    (https://dvc.org/doc/user-guide/project-structure/internal-files).
    """
    if path.is_file():
        state = path.stat()
        # A file written a moment ago may be written again before its time moves on.
        settled = time.time_ns() - state.st_mtime_ns > _SETTLED_NANOSECONDS
        read = _file_hash if settled else _file_hash.__wrapped__
        return read(path.absolute(), state.st_ino, state.st_size, state.st_mtime_ns)
    files = sorted(
        (file.relative_to(path).as_posix(), file)
        for file in path.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    )
    listing = [{"md5": dvc_hash(file), "relpath": name} for name, file in files]
    text = json.dumps(listing, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


@functools.cache
def _file_hash(path: Path, node: int, size: int, modified: int) -> str:
    """Read once a process: every arm of a cell names the same corpus."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
