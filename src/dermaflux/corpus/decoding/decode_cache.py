"""Decoded pictures on disk between decoding and writing, so that memory never holds a corpus.

Reads image files; writes `.dermaflux/checkpoints/ingest/<fingerprint>/` of the main checkout:
``pictures.bin`` (encoded pictures and thumbnails), ``index.jsonl`` (one line per finished batch).
A killed stage goes on after its last finished batch; the fingerprint covers path, size and change
time of each file and the rule it is decoded by.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dermaflux.corpus.decoding.decode import CorpusImage, Task, decode_files
from dermaflux.corpus.decoding.perceptual_hash import SIDE
from dermaflux.errors import InputError
from dermaflux.paths import project_root
from dermaflux.sources.adapter import Problem

if TYPE_CHECKING:
    import numpy as np

BATCH = 16  # files a process decodes at a time
_THUMBNAIL = SIDE * SIDE


@dataclass(frozen=True, slots=True)
class Stored:
    """A picture of the spool; its bytes are `encoded` of them at `offset`, then its thumbnail."""

    offset: int
    encoded: int
    width: int
    height: int
    scale: int
    sha256: str
    phash: int
    skin_tone: str | None

    @property
    def shorter(self) -> int:
        """Shorter side in pixels, as published."""
        return min(self.width, self.height)


class Spool:
    """Finished batches in order, and access to their bytes."""

    def __init__(self, folder: Path) -> None:
        self._index = folder / "index.jsonl"
        self._file: IO[bytes] = (folder / "pictures.bin").open("a+b")
        self.entries: list[Stored | Problem] = []
        self._size = 0
        self._restore()

    def _restore(self) -> None:
        lines = self._index.read_bytes().splitlines(keepends=True) if self._index.exists() else []
        there = self._file.seek(0, os.SEEK_END)
        whole = []
        for line in lines:
            # A killed process leaves half a line; a lost disk cache may leave lines without bytes.
            if not line.endswith(b"\n") or json.loads(line)["size"] > there:
                break
            batch = json.loads(line)
            self._size = batch["size"]
            for entry in batch["entries"]:
                kind = Problem if "rule" in entry else Stored
                self.entries.append(kind(**entry))
            whole.append(line)
        partial = self._index.with_suffix(".partial")
        partial.write_bytes(b"".join(whole))
        partial.rename(self._index)
        self._file.truncate(self._size)

    def add(self, batch: Sequence[CorpusImage | Problem]) -> None:
        """Append one batch; it is there after a kill once this returns."""
        entries: list[Stored | Problem] = []
        self._file.seek(0, os.SEEK_END)
        for result in batch:
            if isinstance(result, Problem):
                entries.append(result)
                continue
            self._file.write(result.encoded)
            self._file.write(result.thumbnail)
            entries.append(
                Stored(
                    self._size,
                    len(result.encoded),
                    result.width,
                    result.height,
                    result.scale,
                    result.sha256,
                    result.phash,
                    result.skin_tone,
                )
            )
            self._size += len(result.encoded) + len(result.thumbnail)
        self._file.flush()
        line = {"size": self._size, "entries": [_plain(entry) for entry in entries]}
        with self._index.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.entries += entries

    def encoded(self, stored: Stored) -> bytes:
        """JPEG bytes of a picture."""
        return os.pread(self._file.fileno(), stored.encoded, stored.offset)

    def thumbnails(self, pictures: Sequence[Stored]) -> np.ndarray[Any, Any]:
        """Grey thumbnails, uint8 (N, 64, 64)."""
        import numpy as np

        parts = [
            os.pread(self._file.fileno(), _THUMBNAIL, stored.offset + stored.encoded)
            for stored in pictures
        ]
        return np.frombuffer(b"".join(parts), dtype=np.uint8).reshape(-1, SIDE, SIDE)

    def close(self) -> None:
        """Close the file; what it holds stays."""
        self._file.close()


def _plain(entry: Stored | Problem) -> dict[str, Any]:
    # `dataclasses.asdict` copies deeply, which takes 20 s of half a million images.
    return {name: getattr(entry, name) for name in entry.__slots__}


Compute = Callable[
    [Callable[[list[Task]], list[CorpusImage | Problem]], Sequence[list[Task]]],
    Iterator[list[CorpusImage | Problem]],
]
"""Applies a function to batches, in their order; see `executors`."""


@contextmanager
def spooled(tasks: Sequence[Task], compute: Compute) -> Iterator[Spool]:
    """Decode files into a spool, in their order; its folder goes when the block ends.

    It stays when the block is interrupted, so that the next run with the same files resumes.
    """
    from filelock import FileLock

    folder = project_root() / ".dermaflux" / "checkpoints" / "ingest" / _fingerprint(tasks)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        folder.mkdir(exist_ok=True)
        spool = Spool(folder)
        with closing(spool):
            _fill(spool, tasks, compute)
            try:
                yield spool
            except InputError:
                shutil.rmtree(folder)  # the user will change the input, and with it the fingerprint
                raise
        shutil.rmtree(folder)


def _fingerprint(tasks: Sequence[Task]) -> str:
    """Hex digest of everything that decides the spool, hashed file by file."""
    from PIL import __version__

    layout = " ".join(Stored.__slots__)  # an index of another version has other entries
    state = hashlib.sha256(f"{__version__} {BATCH} {layout}".encode())
    container, about = "", (-1, -1)
    for path, member, rule in tasks:
        if member is None or path != container:
            container, about = path, _change(path)
        state.update(json.dumps([path, member, *about, rule.scale, rule.quality]).encode())
    return state.hexdigest()[:32]


def _change(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return (-1, -1)
    return status.st_size, status.st_mtime_ns


def _fill(spool: Spool, tasks: Sequence[Task], compute: Compute) -> None:
    from dermaflux.progress import progress

    left = tasks[len(spool.entries) :]
    batches = [list(left[start : start + BATCH]) for start in range(0, len(left), BATCH)]
    if not batches:
        return
    with progress("decode", len(tasks), done=len(spool.entries)) as advance:
        for batch in compute(decode_files, batches):
            spool.add(batch)
            advance(len(batch))
