"""Decoded pictures on disk between decoding and writing, so that memory never holds a corpus.

Reads image files; writes `.dermaflux/checkpoints/ingest/<fingerprint>/` of the main checkout:
``pictures.bin`` (encoded pictures and thumbnails), ``index.jsonl`` (one line per finished batch).
A killed stage goes on after its last finished batch; the fingerprint covers path, size and change
time of each file and the rule it is decoded by.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dermaflux.checkpoints import fingerprint
from dermaflux.corpus.decode import Picture, Rule, decode_files
from dermaflux.corpus.perceptual_hash import SIDE
from dermaflux.corpus.sources.adapter import Problem
from dermaflux.errors import InputError
from dermaflux.paths import project_root

if TYPE_CHECKING:
    import numpy as np

BATCH = 32  # files a process decodes at a time
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
        whole = [line for line in lines if line.endswith(b"\n")]
        for line in whole:
            batch = json.loads(line)
            self._size = batch["size"]
            for entry in batch["entries"]:
                kind = Problem if "rule" in entry else Stored
                self.entries.append(kind(**entry))
        self._index.write_bytes(b"".join(whole))
        self._file.truncate(self._size)

    def add(self, batch: Sequence[Picture | Problem]) -> None:
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
                )
            )
            self._size += len(result.encoded) + len(result.thumbnail)
        self._file.flush()
        line = {"size": self._size, "entries": [asdict(entry) for entry in entries]}
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


@contextmanager
def spooled(tasks: Sequence[tuple[Path, Rule]]) -> Iterator[Spool]:
    """Decode files on all cores into a spool, in their order; its folder goes when the block ends.

    It stays when the block is interrupted, so that the next run with the same files resumes.
    """
    from filelock import FileLock

    folder = project_root() / ".dermaflux" / "checkpoints" / "ingest" / _fingerprint(tasks)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        folder.mkdir(exist_ok=True)
        spool = Spool(folder)
        try:
            _fill(spool, tasks)
            yield spool
        except InputError:
            shutil.rmtree(folder)  # the user will change the input, and with it the fingerprint
            raise
        finally:
            spool.close()
        shutil.rmtree(folder)


def _fingerprint(tasks: Sequence[tuple[Path, Rule]]) -> str:
    from PIL import __version__

    files = []
    for path, rule in tasks:
        try:
            status = path.stat()
            state = (status.st_size, status.st_mtime_ns)
        except OSError:
            state = (-1, -1)
        files.append((str(path.absolute()), *state, *asdict(rule).values()))
    return fingerprint(pillow=__version__, batch=BATCH, files=files)


def _fill(spool: Spool, tasks: Sequence[tuple[Path, Rule]]) -> None:
    from joblib import Parallel, delayed

    from dermaflux.progress import progress

    left = tasks[len(spool.entries) :]
    batches = [list(left[start : start + BATCH]) for start in range(0, len(left), BATCH)]
    # One worker computes in this process; the results, and so all outputs, are the same.
    results = Parallel(n_jobs=-1, return_as="generator")(
        delayed(decode_files)(batch) for batch in batches
    )
    with progress("decode", len(tasks), done=len(spool.entries)) as advance:
        for batch in results:
            spool.add(batch)
            advance(len(batch))
