"""Decoded images on disk between decoding and writing, so that memory never holds a corpus.

Reads image files; writes `.dermaflux/checkpoints/ingest/<fingerprint>/` of the main checkout:
``images.bin`` (encoded images and thumbnails), ``index.jsonl`` (one line per finished batch). A
killed stage resumes after its last finished batch; the fingerprint covers the code of the stage,
path, size and change time of each file, and the rule it is decoded by.
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

from dermaflux.core.code_digest import stage_digest
from dermaflux.core.files import locked
from dermaflux.core.hashing import sha256
from dermaflux.corpus.decoding.decode import CorpusImage, Task, decode_files
from dermaflux.corpus.duplicates.signatures import SIDE
from dermaflux.errors import InputError
from dermaflux.paths import project_root
from dermaflux.sources.adapter import Problem

if TYPE_CHECKING:
    from dermaflux.core.arrays import Array

BATCH = 16  # files a process decodes at a time
_THUMBNAIL = SIDE * SIDE


@dataclass(frozen=True, slots=True)
class CachedImage:
    """An entry of the cache: `size` bytes of JPEG at `offset`, followed by the thumbnail."""

    offset: int
    size: int
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


class DecodeCache:
    """Finished batches in order, and access to their bytes."""

    def __init__(self, folder: Path) -> None:
        self._index = folder / "index.jsonl"
        self._file: IO[bytes] = (folder / "images.bin").open("a+b")
        self.entries: list[CachedImage | Problem] = []
        """One per file, in the order of the tasks."""
        self._size = 0
        self._restore()

    def _restore(self) -> None:
        lines = self._index.read_bytes().splitlines(keepends=True) if self._index.exists() else []
        size_on_disk = self._file.seek(0, os.SEEK_END)
        whole = []
        for line in lines:
            # A killed process leaves half a line; a lost disk cache may leave lines without bytes.
            try:
                batch = json.loads(line)
                kinds = [Problem if "rule" in entry else CachedImage for entry in batch["entries"]]
                entries = [
                    kind(**entry) for kind, entry in zip(kinds, batch["entries"], strict=True)
                ]
                if not line.endswith(b"\n") or not self._size <= batch["size"] <= size_on_disk:
                    break
            except (ValueError, TypeError, KeyError, RecursionError):
                break
            self._size = batch["size"]
            self.entries += entries
            whole.append(line)
        partial = self._index.with_suffix(".partial")
        partial.write_bytes(b"".join(whole))
        partial.rename(self._index)
        self._file.truncate(self._size)

    def add(self, batch: Sequence[CorpusImage | Problem]) -> None:
        """Append one batch; once this returns, a kill does not lose it."""
        entries: list[CachedImage | Problem] = []
        self._file.seek(0, os.SEEK_END)
        for result in batch:
            if isinstance(result, Problem):
                entries.append(result)
                continue
            self._file.write(result.encoded)
            self._file.write(result.thumbnail)
            entries.append(
                CachedImage(
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
        line = {"size": self._size, "entries": [_fields(entry) for entry in entries]}
        with self._index.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.entries += entries

    def encoded(self, image: CachedImage) -> bytes:
        """JPEG bytes of an image; raises `InputError` for others than were decoded."""
        content = os.pread(self._file.fileno(), image.size, image.offset)
        if sha256(content) != image.sha256:
            raise InputError(
                f"{self._file.name} does not keep what is written to it; run `dermaflux ingest` "
                "again, which decodes all files again, and check that disk"
            )
        return content

    def thumbnails(self, images: Sequence[CachedImage]) -> Array:
        """Grey thumbnails, uint8 (N, 64, 64)."""
        import numpy as np

        parts = [
            os.pread(self._file.fileno(), _THUMBNAIL, image.offset + image.size) for image in images
        ]
        return np.frombuffer(b"".join(parts), dtype=np.uint8).reshape(-1, SIDE, SIDE)

    def close(self) -> None:
        """Close the file; its contents stay."""
        self._file.close()


def _fields(entry: CachedImage | Problem) -> dict[str, Any]:
    # `dataclasses.asdict` copies deeply, which takes 20 s for half a million images.
    return {name: getattr(entry, name) for name in entry.__slots__}


MapBatches = Callable[
    [Callable[[list[Task]], list[CorpusImage | Problem]], Sequence[list[Task]]],
    Iterator[list[CorpusImage | Problem]],
]
"""Applies a function to batches, in their order; see `map_batches`."""


@contextmanager
def open_cache(tasks: Sequence[Task], map_batches: MapBatches) -> Iterator[DecodeCache]:
    """Decode files into a cache, in their order; its folder is removed when the block ends.

    It stays when the block is interrupted, by a full disk too, so that the next run with the same
    files resumes; of other files, only running stages keep theirs.
    """
    folder = project_root() / ".dermaflux" / "checkpoints" / "ingest" / _fingerprint(tasks)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock"), "ingest: the same images cannot be decoded"):
        _remove_others(folder)
        folder.mkdir(exist_ok=True)
        cache = DecodeCache(folder)
        with closing(cache):
            _fill(cache, tasks, map_batches)
            try:
                yield cache
            except InputError:
                shutil.rmtree(folder)  # the user will change the input, and with it the fingerprint
                raise
        shutil.rmtree(folder)


def _remove_others(folder: Path) -> None:
    """Remove what killed runs with other files or other code left, unless one is running.

    Such a cache may be as large as the corpus, and nothing else would ever remove it.
    """
    from filelock import FileLock, Timeout

    for other in sorted(folder.parent.glob("*/")):
        if other == folder:
            continue
        try:
            with FileLock(other.with_suffix(".lock"), timeout=0):
                shutil.rmtree(other, ignore_errors=True)
        except Timeout:
            continue
        print("ingest: removed the unfinished work of a run with other files or code", flush=True)


def _fingerprint(tasks: Sequence[Task]) -> str:
    """Hex digest of everything that decides the cache, hashed file by file."""
    from PIL import __version__

    state = hashlib.sha256(f"{__version__} {stage_digest('ingest')}".encode())
    archive, version = "", (-1, -1)
    for path, member, rule in tasks:
        if member is None or path != archive:
            archive, version = path, _file_version(path)
        state.update(json.dumps([path, member, *version, rule.scale, rule.quality]).encode())
    return state.hexdigest()[:32]


def _file_version(path: str) -> tuple[int, int]:
    """Size in bytes and change time in nanoseconds; -1 for a file that cannot be read."""
    try:
        status = os.stat(path)
    except OSError:
        return (-1, -1)
    return status.st_size, status.st_mtime_ns


def _fill(cache: DecodeCache, tasks: Sequence[Task], map_batches: MapBatches) -> None:
    from dermaflux.progress import progress

    remaining = tasks[len(cache.entries) :]
    batches = [list(remaining[start : start + BATCH]) for start in range(0, len(remaining), BATCH)]
    if not batches:
        return
    with progress("decode", len(tasks), done=len(cache.entries)) as advance:
        for batch in map_batches(decode_files, batches):
            cache.add(batch)
            advance(len(batch))
