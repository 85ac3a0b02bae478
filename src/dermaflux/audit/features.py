"""Features of the images of a table folder, each computed once.

Reads table folders and `.dermaflux/cache/features/` of the main checkout, writes the latter. An
entry belongs to an image's content (sha256 of its encoded bytes) and to the trunk's weights, never
to a position in a list, so another audit, another pool or another experiment that meets an image
reads it. Features of the trunk `pixels` are not kept: to decode an image is as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dermaflux.core.arrays import Array, Pixels
from dermaflux.core.hashing import sha256
from dermaflux.corpus.duplicates.signatures import SIDE
from dermaflux.errors import InputError
from dermaflux.paths import project_root
from dermaflux.progress import progress

if TYPE_CHECKING:
    import pandas as pd

    from dermaflux.audit.image_sets import AuditedImages, ImageSet
    from dermaflux.audit.trunks import Trunk

_VERSION = 1  # of the way from encoded bytes to features
_BATCH = 64
_READ_TOGETHER = 256  # entries of the cache


class Features(NamedTuple):
    """Of N images."""

    points: Array
    """(N, D), or (N, 8, D) of each image's eight `symmetries`."""
    logits: Array | None
    """(N, C) of the images as they are, where the trunk has classes."""


@dataclass(frozen=True)
class Turned:
    """Features of N images under the eight `symmetries`, as an array (N, 8, D) would have them.

    They are made of those of the images as they are where they are read, in an eighth of the
    memory.
    """

    points: Array
    """(N, D)"""
    turn: Callable[[Array], Array]
    """(B, D) -> (B, 8, D)"""

    def __len__(self) -> int:
        return len(self.points)

    @property
    def size(self) -> int:
        """Numbers that the array would hold."""
        return 8 * self.points.size

    def __getitem__(self, rows: slice | Array) -> Array:
        return self.turn(self.points[rows])


@dataclass(frozen=True)
class AuditedFeatures:
    """Of `image_sets.AuditedImages`, set by set."""

    pool: Features
    training: Features
    held_out: Features
    test: Features
    queries: Array | Turned
    """(N + H, 8, D) of the pool and the held-out images, under the symmetries."""

    def of_pool(self) -> Array | Turned:
        """(N, 8, D)"""
        count = len(self.pool.points)
        if isinstance(self.queries, Turned):
            return Turned(self.queries.points[:count], self.queries.turn)
        return self.queries[:count]


def symmetries(images: Array) -> Array:
    """(B, S, S, 3) -> (B, 8, S, S, 3): the square's eight symmetries, the identity first."""
    rotations = [np.rot90(images, quarter, axes=(1, 2)) for quarter in range(4)]
    return np.stack([*rotations, *(rotation[:, :, ::-1] for rotation in rotations)], axis=1)


def extract(
    folder: Path, rows: pd.DataFrame, split: str | None, trunk: Trunk, symmetric: bool = False
) -> Features:
    """Features of the images of a split, in the order of `rows`: columns image_id, sha256.

    With `symmetric`, of each image's eight symmetries. Raises `InputError` when an image is missing
    and for a disk without room.
    """
    ids, hashes = list(rows["image_id"]), list(rows["sha256"])
    if trunk.identity is not None and ids and all(hashes):
        return _kept(folder, ids, hashes, split, trunk, symmetric)
    index = {image_id: row for row, image_id in enumerate(ids)}
    result = Features(np.empty((0, 8, 1) if symmetric else (0, 1), np.float32), None)
    for row, (image_id, features) in enumerate(_computed(folder, ids, split, trunk, symmetric)):
        if not row:
            result = Features(
                np.empty((len(ids), *features.points.shape), features.points.dtype),
                None if features.logits is None else np.empty((len(ids), len(features.logits))),
            )
        result.points[index[image_id]] = features.points
        if result.logits is not None:
            result.logits[index[image_id]] = features.logits
    return result


def extract_all(images: AuditedImages, trunk: Trunk) -> AuditedFeatures:
    """Features of every set of images that is audited."""
    training = extract(*images.training, trunk)
    if len(images.test.rows):
        test = extract(*images.test, trunk)
    else:
        test = Features(
            training.points[:0], None if training.logits is None else training.logits[:0]
        )
    (pool, held_out), queries = under_symmetries([images.pool, images.held_out], trunk)
    return AuditedFeatures(pool, training, held_out, test, queries)


def under_symmetries(
    parts: Sequence[ImageSet], trunk: Trunk
) -> tuple[list[Features], Array | Turned]:
    """Features (N, D) of the images of each set, and (M, 8, D) of all of them in a row."""
    found = [extract(*part, trunk, symmetric=trunk.turn is None) for part in parts]
    together = np.concatenate([each.points for each in found if len(each.points)])
    if trunk.turn is not None:
        return found, Turned(together, trunk.turn)
    return [each._replace(points=each.points[:, 0].copy()) for each in found], together


def _kept(
    folder: Path,
    ids: Sequence[str],
    hashes: Sequence[str],
    split: str | None,
    trunk: Trunk,
    symmetric: bool,
) -> Features:
    """From the cache, after what it lacks has been computed into it."""
    import torch

    from dermaflux.core.tensor_cache import TensorCache, key, reserve

    cache = TensorCache(cache_folder(trunk))
    keys = [key(_VERSION, digest, symmetric) for digest in hashes]
    missing = {ids[index]: keys[index] for index in cache.missing(keys)}
    if missing:
        with cache.writer() as writer:
            found = _computed(folder, list(missing), split, trunk, symmetric)
            for row, (image_id, features) in enumerate(found):
                if not row:
                    needed = len(missing) * sum(
                        part.nbytes for part in features if part is not None
                    )
                    reserve(cache.folder, needed, "free some space")
                named = zip(Features._fields, features, strict=True)
                entry = {name: torch.from_numpy(part) for name, part in named if part is not None}
                writer.add(missing[image_id], entry)
    blocks = [
        cache.read(keys[first : first + _READ_TOGETHER])
        for first in range(0, len(keys), _READ_TOGETHER)
    ]
    parts = {name: torch.cat([block[name] for block in blocks]).numpy() for name in blocks[0]}
    return Features(parts["points"], parts.get("logits"))


def cache_folder(trunk: Trunk) -> Path:
    """Where features of a trunk live."""
    name = f"{sha256(str(trunk.identity).encode())[:16]}"
    return project_root() / ".dermaflux" / "cache" / "features" / name


def _computed(
    folder: Path, ids: Sequence[str], split: str | None, trunk: Trunk, symmetric: bool
) -> Iterator[tuple[str, Features]]:
    """Of each image by itself, in the order in which the table has them."""
    for names, images in _batches(folder, ids, split, trunk.side):
        turned = symmetries(images) if symmetric else images[:, None]
        points, logits = trunk.function(turned.reshape(-1, *images.shape[1:]))
        points = points.reshape(*turned.shape[:2], -1)
        if logits is not None:
            logits = logits[:: turned.shape[1]]
        for row, name in enumerate(names):
            of_image = points[row] if symmetric else points[row, 0]
            yield name, Features(of_image, None if logits is None else logits[row])


def _batches(
    folder: Path, ids: Sequence[str], split: str | None, side: int
) -> Iterator[tuple[list[str], Pixels]]:
    """image_ids and uint8 (B, side, side, 3). Raises `InputError` when an image is missing."""
    from dermaflux.core import table

    stream, done = table.decoded(folder, ids, split, side), 0
    with progress(f"audit.{folder.name}", len(ids)) as advance:
        while batch := list(islice(stream, _BATCH)):
            yield [name for name, _ in batch], np.stack([image for _, image in batch])
            done += len(batch)
            advance(len(batch))
    if done != len(ids):
        raise InputError(
            f"{folder} contains {done} of the {len(ids)} requested images"
            f"{f' of split {split}' if split else ''}; run the stage that writes it again"
        )


def thumbnails(folder: Path, image_ids: Sequence[str], split: str | None) -> Pixels:
    """Grey thumbnails uint8 (N, 64, 64) of images of a split, in the order of `image_ids`.

    Luma of ITU-R BT.601, as Pillow rounds it. Raises `InputError` when an image is missing.
    """
    from PIL import Image

    index = {image_id: row for row, image_id in enumerate(image_ids)}
    grey = np.empty((len(image_ids), SIDE, SIDE), np.uint8)
    for names, images in _batches(folder, image_ids, split, SIDE):
        for name, image in zip(names, images, strict=True):
            grey[index[name]] = np.asarray(Image.fromarray(image).convert("L"))
    return grey
