"""What a trained classifier says about training images: its logits, for a student to learn.

The teacher sees exactly the view that the student sees, which matters more than any other choice
("consistent teaching": Beyer et al. 2022, arXiv 2106.05237, section 3.1). Where augmentation has
finitely many views (`none`, and `flips`: the square's eight symmetries), their logits are computed
once and kept in `.dermaflux/cache/teacher-logits/` of the main checkout, by the content of the
image, by the teacher and by the code; otherwise the teacher runs at every step.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dermaflux.classifiers.data.samples import Images
from dermaflux.classifiers.model import network, pretrained
from dermaflux.classifiers.recipes.classification.augmentation import turn
from dermaflux.core.checkpoints import fingerprint
from dermaflux.core.code_digest import stage_digest
from dermaflux.core.files import locked
from dermaflux.core.hashing import sha256
from dermaflux.core.tensor_cache import TensorCache, key
from dermaflux.paths import project_root
from dermaflux.progress import progress

Teaching = Callable[[Tensor], Tensor]
"""Images (B, 3, S, S) in [0, 1] -> logits (B, K) or (B, 1), float32 on their device."""
VIEWS = {"none": 1, "flips": 8}
"""Augmentation -> how many views of an image it can show, where these are finitely many."""


class Teacher:
    """A classifier folder that `train` wrote, in full precision, without gradients."""

    def __init__(self, folder: Path) -> None:
        self.net, self.config = network.load(folder)
        self.digest = fingerprint(
            weights=pretrained.digest(folder / "model.safetensors"),
            config=self.config,
            code=stage_digest("distill"),
        )

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits, a `Teaching`."""
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.net(network.normalise(images.float(), self.config))
        return logits.float()


class CachedTeacher:
    """The logits of all views of some images, looked up by the pixels of a view."""

    def __init__(self, teacher: Teacher, images: Images, views: int) -> None:
        entries = _entries(teacher, images, views)
        self._table = entries["logits"].flatten(0, 1)
        names = entries["pixels"].flatten(0, 1).numpy()
        self._row = {name.tobytes(): row for row, name in enumerate(names)}

    def __call__(self, images: Tensor) -> Tensor:
        """Logits, a `Teaching`; raises `KeyError` for what is no view of these images."""
        rows = [self._row[name.tobytes()] for name in _hashes(images).numpy()]
        return self._table[rows].to(images.device)


def teach(teacher: Teacher, images: Images, augmentation: str) -> Teaching:
    """The teacher of training `images` under an augmentation, cached where that is exact."""
    if augmentation not in VIEWS:
        return teacher
    return CachedTeacher(teacher, images, VIEWS[augmentation])


def cache_folder(device: torch.device) -> Path:
    """Where logits live. Another device or library may compute other bits."""
    import timm

    name = f"{device.type}-torch-{torch.__version__}-timm-{timm.__version__}"
    return project_root() / ".dermaflux" / "cache" / "teacher-logits" / name


def _entries(teacher: Teacher, images: Images, views: int) -> dict[str, Tensor]:
    """`logits` (N, views, K) and the hashes `pixels` (N, views, 32), from the cache or computed.

    The views of one image are one batch, so its logits do not depend on which others are missing,
    and a run that was killed ends bit-equal to an unbroken one.
    """
    device = next(teacher.net.parameters()).device
    cache = TensorCache(cache_folder(device))
    keys = [
        key(teacher.digest, views, *image.shape, sha256(image.numpy().tobytes()))
        for image in _singly(images)
    ]
    with locked(cache.folder / ".lock", "distill: the same logits cannot be computed"):
        cache.refresh()
        missing = cache.missing(keys)
        with progress("teacher.images", len(missing)) as advance, cache.writer() as writer:
            for index, image in zip(missing, _singly(images, missing), strict=True):
                batch = _views(image, views)
                entry = {"logits": teacher(batch.to(device)), "pixels": _hashes(batch)}
                writer.add(keys[index], entry)
                advance(1)
    return cache.read(keys)


def _singly(images: Images, indices: Sequence[int] | None = None) -> Iterator[Tensor]:
    """uint8 (1, S, S, 3) of each image."""
    for index in range(len(images)) if indices is None else indices:
        yield network.read(images, slice(index, index + 1))


def _views(image: Tensor, count: int) -> Tensor:
    """Float (count, 3, S, S) in [0, 1] of an image, uint8 (1, S, S, 3); the first is unturned."""
    coins = torch.tensor(list(itertools.product((False, True), repeat=3))[:count])
    return turn(network.unit(image).expand(count, -1, -1, -1), *coins.T)


def _hashes(images: Tensor) -> Tensor:
    """uint8 (B, 32), SHA-256 of the pixels of (B, 3, S, S), which are 8-bit values / 255."""
    pixels = (images.permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()
    digests = [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in pixels]
    return torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.uint8).view(-1, 32)
