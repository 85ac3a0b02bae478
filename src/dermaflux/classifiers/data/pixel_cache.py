"""Decoded images on disk: every cell, stage and experiment that meets an image decodes it once.

Reads shards of a table folder and `.dermaflux/cache/pixels/` of the main checkout, writes the
latter. An entry belongs to an image's content (sha256 of its encoded bytes) and its side, never to
a position in a list; it carries a checksum, and a damaged one is decoded again. Workers that start
together wait for the one that decodes, then read. Images stay in the cache, whose files are mapped
into memory: what `CachedPixels` reads is a batch at a time.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dermaflux.core import table
from dermaflux.core.arrays import Array, Pixels
from dermaflux.core.decode_ahead import decode_ahead
from dermaflux.core.files import locked
from dermaflux.core.hashing import sha256
from dermaflux.core.images import decode_image
from dermaflux.core.tensor_cache import TensorCache, key, reserve
from dermaflux.errors import InputError
from dermaflux.paths import project_root
from dermaflux.progress import progress

_VERSION = 1  # of the way from encoded bytes to pixels
_CHECKED_TOGETHER = 64  # images read from the cache at a time
_DECODED_AHEAD = 64  # images


class CachedPixels:
    """uint8 RGB (N, S, S, 3) in the cache: an index selects images, `np.asarray` reads them.

    Reading raises `InputError` for an image that has left the cache since it was checked.
    """

    def __init__(self, cache: TensorCache, keys: Sequence[bytes], side: int) -> None:
        self._cache, self._side = cache, side
        self._keys = np.empty(len(keys), object)
        self._keys[:] = keys

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, S, S, 3)."""
        return len(self), self._side, self._side, 3

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: slice | Array) -> CachedPixels:
        if not isinstance(index, (slice, np.ndarray)):
            raise TypeError("a slice or an array of indices selects images")
        return CachedPixels(self._cache, list(self._keys[index]), self._side)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Pixels:
        if not len(self):
            return np.empty(self.shape, np.uint8)
        keys = list(self._keys)
        try:
            try:
                return self._cache.read(keys)["pixels"].numpy()
            except (KeyError, FileNotFoundError):
                self._cache.refresh()  # another process may have written the shard again
                return self._cache.read(keys)["pixels"].numpy()
        except (KeyError, FileNotFoundError):
            raise InputError(
                f"an image left {self._cache.folder} while it was needed; run the command again, "
                "which decodes it anew, and leave that folder alone meanwhile"
            ) from None


def concatenate(first: CachedPixels, second: CachedPixels) -> CachedPixels:
    """Images of one side after each other; raises `ValueError` for two sides."""
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"images of {first.shape[1]} and of {second.shape[1]} pixels")
    cache = TensorCache(cache_folder(first.shape[1]))
    return CachedPixels(cache, [*first._keys, *second._keys], first.shape[1])


def read(folder: Path, split: str, wanted: Mapping[str, str], side: int) -> CachedPixels:
    """uint8 RGB (N, side, side, 3) of the images `wanted` (image_id -> sha256), in their order.

    Images of another size are resized with antialiasing. Raises `InputError` for an image that
    the split lacks, that has other bytes than its sha256 says or that cannot be decoded, and for a
    disk without room.
    """
    cache = TensorCache(cache_folder(side))
    keys = [key(_VERSION, digest, side) for digest in wanted.values()]
    pixels = CachedPixels(cache, keys, side)
    if not cache.missing(keys) and not _damaged(cache, keys):
        return pixels
    with locked(cache.folder / ".lock", "train: the same images cannot be decoded"):
        cache.refresh()
        if not cache.missing(keys) and (damaged := _damaged(cache, keys)):
            print(f"{len(damaged):,} images in {cache.folder} are damaged and decoded again")
            cache.discard([keys[index] for index in damaged])
        names = list(wanted)
        missing = {names[index]: keys[index] for index in cache.missing(keys)}
        if missing:
            _decode(cache, folder, split, {name: wanted[name] for name in missing}, missing, side)
        if damaged := _damaged(cache, keys):
            raise InputError(
                f"{cache.folder} does not keep what is written to it ({len(damaged):,} of "
                f"{len(keys):,} images came back damaged); check that disk"
            )
    return pixels


def cache_folder(side: int) -> Path:
    """Where images of one side live. Another version of Pillow may decode to other bits."""
    import PIL

    name = f"{side}-pillow-{PIL.__version__}"
    return project_root() / ".dermaflux" / "cache" / "pixels" / name


def _damaged(cache: TensorCache, keys: Sequence[bytes]) -> list[int]:
    """Indices of the entries whose checksum does not fit their pixels."""
    damaged = []
    for first in range(0, len(keys), _CHECKED_TOGETHER):
        entries = cache.read(keys[first : first + _CHECKED_TOGETHER])
        sums = entries["checksum"].tolist()
        damaged += [
            first + index
            for index, image in enumerate(entries["pixels"].numpy())
            if zlib.crc32(image.data) != sums[index]
        ]
    return damaged


def _decode(
    cache: TensorCache,
    folder: Path,
    split: str,
    wanted: Mapping[str, str],
    key_of: Mapping[str, bytes],
    side: int,
) -> None:
    """Decode images on all cores into the cache; a killed run keeps its finished shards."""
    reserve(cache.folder, len(wanted) * 3 * side**2, "free some space or lower train.image_size")
    missing = dict(wanted)

    def decoded(row: tuple[str, bytes]) -> tuple[str, Pixels]:
        image_id, encoded = row
        return image_id, _decoded(folder, image_id, encoded, wanted[image_id], side)

    with (
        progress(f"pixels.{split}", len(wanted)) as advance,
        cache.writer() as writer,
        closing(decode_ahead(decoded, _encoded(folder, split, missing), _DECODED_AHEAD)) as images,
    ):
        for image_id, pixels in images:
            checksum = torch.tensor(zlib.crc32(pixels.data), dtype=torch.int64)
            entry = {"pixels": torch.from_numpy(pixels), "checksum": checksum}
            writer.add(key_of[image_id], entry)
            advance(1)
    if missing:
        raise InputError(
            f"{folder} lacks {len(missing):,} of {len(wanted):,} wanted images of split {split} "
            f"such as {next(iter(missing))}; run the stage that writes it again"
        )


def _encoded(folder: Path, split: str, missing: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """Stream (image_id, encoded bytes) of the `missing` images, removing each from it."""
    for image_id, encoded in table.images(folder, list(missing), split):
        if missing.pop(image_id, None) is not None:
            yield image_id, encoded


def _decoded(folder: Path, image_id: str, encoded: bytes, expected: str, side: int) -> Pixels:
    """uint8 (side, side, 3)."""
    from PIL import Image

    if sha256(encoded) != expected:
        raise InputError(
            f"image {image_id} of {folder} has other bytes than its sha256 {str(expected)[:12]} "
            "says; run the stage that writes it again"
        )
    try:
        image = decode_image(encoded)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"image {image_id} of {folder} cannot be decoded ({error}); run the stage that writes "
            "it again"
        ) from None
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    return np.array(image)
