"""The curves of a training: rows appended to JSON lines beside the checkpoint.

A checkpoint holds the sizes of the files, never their rows, so that it does not grow with the
steps. Rows that a killed run wrote after its last checkpoint are cut off on resume.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO


@dataclass(frozen=True)
class Curves:
    """What a training has measured; empty in all processes but the main one."""

    training: list[dict[str, float]] = field(default_factory=list)
    """One row per step: step, loss, its named terms, learning_rate."""
    events: list[dict[str, float]] = field(default_factory=list)
    """One row per step with events that measured something: step and their numbers."""


def size(path: Path) -> int:
    """Bytes of a file, 0 when there is none."""
    return path.stat().st_size if path.exists() else 0


def whole(path: Path, length: int) -> bool:
    """Whether the first `length` bytes of a curve are there and are rows."""
    if size(path) < length:
        return False
    with path.open("rb") as file:
        lines = file.read(length).splitlines()
    try:
        return all(isinstance(json.loads(line), dict) for line in lines)
    except ValueError:
        return False


class CurveFile:
    """Rows of numbers in a file of JSON lines, read back as the same floats."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] = path.open("ab")

    def truncate(self, length: int) -> None:
        """Drop everything after the first `length` bytes, which a checkpoint knows of."""
        self._file.truncate(length)

    def append(self, row: Mapping[str, float]) -> None:
        """Add one row; it reaches the disk with the next `sync`."""
        self._file.write(json.dumps(row).encode() + b"\n")

    def sync(self) -> int:
        """Write all rows to the disk; returns the size in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return size(self._path)

    def rows(self) -> list[dict[str, float]]:
        """All rows."""
        self._file.flush()
        with self._path.open("rb") as file:
            return [json.loads(line) for line in file]

    def close(self) -> None:
        """Close the file; rows not yet written reach it."""
        self._file.close()
