"""Images stored as members of an HDF5 file, as Kaggle publishes ISIC 2024: key -> JPEG bytes.

Reads HDF5 through h5py (extra `hdf5`). One file handle per process and file stays open, because
opening costs more than reading one image.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from dermaflux.errors import InputError

SUFFIXES = frozenset((".hdf5", ".h5"))


@lru_cache(maxsize=4)
def _open(path: Path, changed: int) -> Any:
    try:
        import h5py  # type: ignore[import-not-found, unused-ignore]
    except ModuleNotFoundError:
        raise InputError(
            f"{path} is an HDF5 file and h5py is not installed; run `pip install dermaflux[hdf5]` "
            "or unpack the images into a folder"
        ) from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(
            f"{path} is not a complete HDF5 file ({error}); download it again"
        ) from None


def members(path: Path) -> list[str]:
    """Keys of an HDF5 file, sorted. Raises `InputError` when it cannot be opened."""
    return sorted(_open(path, path.stat().st_mtime_ns))


def read_member(path: Path, member: str) -> bytes:
    """The encoded image under a key. Raises `OSError` when it cannot be read."""
    import numpy as np

    try:
        value = _open(path, path.stat().st_mtime_ns)[member][()]
    except (KeyError, InputError) as error:
        raise OSError(0, f"{path.name} has no readable member {member}: {error}") from None
    # Kaggle stores a scalar of bytes; other writers an array of uint8.
    return bytes(np.asarray(value).tobytes())
