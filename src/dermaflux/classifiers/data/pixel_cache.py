"""Decoded images on disk: every cell, stage and experiment that meets an image decodes it once.

Reads shards of a table folder and `.dermaflux/cache/pixels/` of the main checkout, writes the
latter. An entry belongs to the picture's content (sha256 of its encoded bytes) and its side, never
to a place in a list; it carries a checksum, and a damaged one is decoded again. Workers that start
together wait for the one that decodes, then read.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dermaflux.core import table
from dermaflux.core.hashing import sha256
from dermaflux.core.images import decode_image
from dermaflux.core.tensor_cache import TensorCache, key, reserve
from dermaflux.errors import InputError
from dermaflux.paths import project_root
from dermaflux.progress import progress

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
_VERSION = 1  # of the way from encoded bytes to pixels
_TOGETHER = 512  # images copied out of the cache at a time
_AHEAD = 64  # pictures in the hands of the decoding threads


def read(folder: Path, split: str, wanted: Mapping[str, str], side: int) -> Pixels:
    """uint8 RGB (N, side, side, 3) of the images `wanted` (image_id -> sha256), in their order.

    Pictures of another size are resized with antialiasing. Raises `InputError` for an image that
    the split lacks, that has other bytes than its sha256 says or that cannot be decoded, and for a
    disk without room.
    """
    from filelock import FileLock

    pixels = np.empty((len(wanted), side, side, 3), np.uint8)
    if not wanted:
        return pixels
    cache = TensorCache(cache_folder(side))
    keys = [key(_VERSION, sha256, side) for sha256 in wanted.values()]
    if not cache.missing(keys) and not _copy(cache, keys, pixels):
        return pixels
    with FileLock(cache.folder / ".lock"):
        cache.refresh()
        if not cache.missing(keys) and (damaged := _copy(cache, keys, pixels)):
            print(f"{len(damaged):,} images in {cache.folder} are damaged and decoded again")
            cache.discard([keys[place] for place in damaged])
        names = list(wanted)
        missing = {names[place]: keys[place] for place in cache.missing(keys)}
        if missing:
            _decode(cache, folder, split, {name: wanted[name] for name in missing}, missing, side)
        if damaged := _copy(cache, keys, pixels):
            raise InputError(
                f"{cache.folder} does not keep what is written to it ({len(damaged):,} of "
                f"{len(keys):,} images came back damaged); check that disk"
            )
    return pixels


def cache_folder(side: int) -> Path:
    """Where images of one side live. Another Pillow may decode to other bits, so it is named."""
    import PIL

    name = f"{side}-pillow-{PIL.__version__}"
    return project_root() / ".dermaflux" / "cache" / "pixels" / name


def _copy(cache: TensorCache, keys: Sequence[bytes], into: Pixels) -> list[int]:
    """Fill `into` from the cache; places whose checksum does not fit what was read."""
    damaged = []
    for first in range(0, len(keys), _TOGETHER):
        found = cache.read(keys[first : first + _TOGETHER])
        part = into[first : first + _TOGETHER]
        part[:] = found["pixels"].numpy()
        sums = found["checksum"].tolist()
        damaged += [
            first + place for place, one in enumerate(part) if zlib.crc32(one.data) != sums[place]
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
    """Decode images on all cores into the cache; a killed one keeps its finished shards."""
    reserve(cache.folder, len(wanted) * 3 * side**2, "free some space or lower train.image_size")
    left = dict(wanted)
    with (
        progress(f"pixels.{split}", len(wanted)) as advance,
        cache.writer() as writer,
        ThreadPoolExecutor(cpu_count()) as pool,
    ):
        waiting: deque[Any] = deque()

        def store() -> None:
            image_id, one = waiting.popleft().result()
            checksum = torch.tensor(zlib.crc32(one.data), dtype=torch.int64)
            writer.add(key_of[image_id], {"pixels": torch.from_numpy(one), "checksum": checksum})
            advance(1)

        for image_id, encoded in _encoded(folder, split, left):
            waiting.append(pool.submit(_decoded, folder, image_id, encoded, wanted[image_id], side))
            if len(waiting) > _AHEAD:
                store()
        while waiting:
            store()
    if left:
        raise InputError(
            f"{folder} lacks {len(left):,} of {len(wanted):,} wanted images of split {split} "
            f"such as {next(iter(left))}; run the stage that writes it again"
        )


def _encoded(folder: Path, split: str, left: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """Stream (image_id, encoded bytes) of the images `left`, taking each out of it."""
    for image_id, encoded in table.images(folder, list(left), split):
        if left.pop(image_id, None) is not None:
            yield image_id, encoded


def _decoded(
    folder: Path, image_id: str, encoded: bytes, expected: str, side: int
) -> tuple[str, Pixels]:
    from PIL import Image

    if sha256(encoded) != expected:
        raise InputError(
            f"image {image_id} of {folder} has other bytes than its sha256 {str(expected)[:12]} "
            "says; run the stage that writes it again"
        )
    try:
        picture = decode_image(encoded)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"image {image_id} of {folder} cannot be decoded ({error}); run the stage that writes "
            "it again"
        ) from None
    if picture.size != (side, side):
        picture = picture.resize((side, side), Image.Resampling.BICUBIC)
    return image_id, np.array(picture)
