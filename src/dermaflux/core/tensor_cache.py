"""Tensors on disk by content hash: what is expensive to compute and the same in every epoch.

A folder of safetensors shards. A shard holds many entries of equal shapes, stacked: `keys`, uint8
(N, 32), and one tensor (N, ...) per name. Shards appear whole and are never changed, so any number
of processes may write into one folder at once, and a killed one loses only its unfinished shard.
Reading maps the files into memory; the index takes 40 bytes an entry. Not LMDB, which
forbids network disks that several machines share, nor Arrow files, which have one writer.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dermaflux.core.arrays import Array
from dermaflux.errors import InputError

SHARD_BYTES = 64_000_000
_KEYS = "keys"
_KEY_BYTES = 32
_OPEN_SHARDS = 256  # bounds file descriptors and maps
_ABANDONED_SECONDS = 3600.0  # a shard is written in seconds
Signature = tuple[tuple[str, torch.dtype, torch.Size], ...]


def key(*parts: object) -> bytes:
    """sha256 of the parts: everything that decides an entry, above all its content hash."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).digest()


def reserve(folder: Path, needed: int, fix: str) -> None:
    """Raise `InputError` when the disk of `folder` has fewer than `needed` bytes free."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder} needs {needed / 1e9:,.1f} GB but its disk has {free / 1e9:,.1f} GB free; "
            f"{fix}"
        )


class TensorCache:
    """Named tensors by key, in a folder shared by processes and runs."""

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder, self._shard_bytes = folder, shard_bytes
        folder.mkdir(parents=True, exist_ok=True)
        self._shard = lru_cache(maxsize=_OPEN_SHARDS)(_open)
        self.refresh()

    def refresh(self) -> None:
        """Read the index again, with what other processes wrote; damaged shards are removed."""
        for path in self.folder.glob("*.partial"):
            _remove_abandoned(path)
        self._paths: list[Path] = []
        keys = [np.empty(0, dtype=f"S{_KEY_BYTES}")]
        for path in sorted(self.folder.glob("*.safetensors")):
            stored = _keys_of(path)
            if stored is not None:
                self._paths.append(path)
                keys.append(stored)
        together = np.concatenate(keys)
        # Stable, so that of an entry written twice every process reads the same copy.
        order = np.argsort(together, kind="stable")
        self._keys = together[order]
        sizes = [len(part) for part in keys[1:]]
        self._shard_of = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)[order]
        rows = [np.arange(size, dtype=np.int32) for size in sizes]
        self._row_of = np.concatenate([np.empty(0, dtype=np.int32), *rows])[order]

    def __len__(self) -> int:
        return len(self._keys)

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Indices in `keys` of entries that are absent; of equal keys only the first."""
        first = {entry: index for index, entry in reversed(list(enumerate(keys)))}
        _, present = self._look_up(list(first))
        return sorted(
            index for index, there in zip(first.values(), present, strict=True) if not there
        )

    def read(self, keys: Sequence[bytes]) -> dict[str, Tensor]:
        """Entries of equal shapes, stacked: name -> (B, ...). Raises `KeyError` for an absent one.

        What is returned is a copy; the maps stay private to the cache.
        """
        indices, present = self._look_up(keys)
        if not present.all():
            raise KeyError(keys[int(np.argmin(present))].hex())
        rows = [self._entry(int(index)) for index in indices]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def discard(self, keys: Sequence[bytes]) -> None:
        """Remove the shards that hold these entries, and with them what else those hold."""
        indices, present = self._look_up(keys)
        for shard in np.unique(self._shard_of[indices[present]]):
            self._paths[shard].unlink(missing_ok=True)
        self._shard.cache_clear()  # a shard written again may get its old name
        self.refresh()

    def _look_up(self, keys: Sequence[bytes]) -> tuple[Array, Array]:
        """Position of each key in the index, and whether it is there."""
        # As arrays: numpy strips trailing zero bytes from a single key before it compares.
        wanted = np.array(keys, dtype=f"S{_KEY_BYTES}")
        if not len(self._keys):
            return np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys), dtype=bool)
        indices = np.searchsorted(self._keys, wanted).clip(max=len(self._keys) - 1)
        return indices, self._keys[indices] == wanted

    def _entry(self, index: int) -> dict[str, Tensor]:
        row = int(self._row_of[index])
        shard = self._shard(self._paths[self._shard_of[index]])
        return {name: part[row] for name, part in shard.items()}

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """Add entries; what was added is kept when the work ends early, and readable afterwards."""
        writer = Writer(self.folder, self._shard_bytes)
        try:
            yield writer
        finally:
            writer.close()
            self.refresh()


class Writer:
    """Collects entries and writes them as shards of about `shard_bytes`.

    Memory holds one unfinished shard for each combination of shapes.
    """

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self._folder, self._limit = folder, shard_bytes
        self._waiting: dict[Signature, dict[bytes, Mapping[str, Tensor]]] = {}

    def add(self, key: bytes, tensors: Mapping[str, Tensor]) -> None:
        """One entry; the tensors may be on any device."""
        parts = {name: tensors[name].detach().cpu() for name in sorted(tensors)}
        signature = tuple((name, part.dtype, part.shape) for name, part in parts.items())
        group = self._waiting.setdefault(signature, {})
        group[key] = parts
        if len(group) * sum(part.nbytes for part in parts.values()) >= self._limit:
            self._write(self._waiting.pop(signature))

    def close(self) -> None:
        """Write what is left."""
        while self._waiting:
            self._write(self._waiting.popitem()[1])

    def _write(self, group: Mapping[bytes, Mapping[str, Tensor]]) -> None:
        from safetensors.torch import save_file

        keys = sorted(group)
        columns = {
            name: torch.stack([group[entry][name] for entry in keys]) for name in group[keys[0]]
        }
        numbers = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, _KEY_BYTES)
        columns[_KEYS] = torch.from_numpy(numbers.copy())
        name = hashlib.sha256(b"".join(keys)).hexdigest()[:32]
        partial = self._folder / f"{name}.{os.uname().nodename}-{os.getpid()}.partial"
        try:
            save_file(columns, partial)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        partial.rename(self._folder / f"{name}.safetensors")


def _open(path: Path) -> dict[str, Tensor]:
    """The columns of a shard, mapped: nothing is read before it is touched."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {name: file.get_slice(name)[:] for name in file.keys() if name != _KEYS}  # noqa: SIM118


def _keys_of(path: Path) -> Array | None:
    """Keys of a shard in its order, or None after removing one that cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            keys = file.get_tensor(_KEYS).numpy()
            lengths = {file.get_slice(name).get_shape()[0] for name in file.keys()}  # noqa: SIM118
        if keys.dtype != np.uint8 or keys.shape[1:] != (_KEY_BYTES,) or len(lengths) != 1:
            raise ValueError("its columns do not fit together")
    except FileNotFoundError:
        return None  # another process removed it first
    except (SafetensorError, OSError, ValueError, IndexError) as error:
        print(f"{path} is damaged ({error}) and removed; its entries are computed again")
        path.unlink(missing_ok=True)
        return None
    return np.ascontiguousarray(keys).view(f"S{_KEY_BYTES}").ravel()


def _remove_abandoned(path: Path) -> None:
    """Remove what a killed process left; a live one writes its shard in far less than an hour."""
    try:
        if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return
