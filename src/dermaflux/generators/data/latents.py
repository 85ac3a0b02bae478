"""Latents of the training images: posterior mean and deviation, encoded once and kept on disk.

Reads corpus/ and `.dermaflux/cache/latents/`, writes the latter. An entry belongs to the image's
content, its scale, the autoencoder's weights, dtype and kind of device, never to a place in a list:
caches that lose step with captions are a known way to destroy the class signal
(huggingface/diffusers issue 14430). Both moments are kept, so that each step draws afresh.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from dermaflux.core import table
from dermaflux.core.images import decode_image
from dermaflux.core.tensor_cache import TensorCache, key, reserve
from dermaflux.errors import InputError
from dermaflux.paths import project_root
from dermaflux.progress import progress

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from dermaflux.generators.data.images import Sample

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
_VERSION = 1  # of the pixels' way to the autoencoder
_ENCODED_PIXELS = 16 * 128 * 128
"""Pixels encoded together: 16 images of 128 pixels, one of 512."""
_AHEAD = 64  # decoded pictures waiting for the autoencoder
_DOWNSAMPLING = 8


class Latents:
    """Draws latents of samples; what the cache lacks is encoded first.

    An entry takes 32 kB for an image of 128 pixels and 512 kB for one of 512 in fp32, half of that
    in bf16. Afterwards the autoencoder is not needed any more.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        corpus: Path,
        samples: Sequence[Sample],
        rank: int = 0,
        world: int = 1,
        wait: Callable[[], None] = lambda: None,
    ) -> None:
        """Encode this process's share; `wait` returns when all `world` processes have called it.

        Raises `InputError` for a picture that cannot be decoded or a disk without room.
        """
        self._shift = float(vae.config.shift_factor or 0.0)
        self._scaling = float(vae.config.scaling_factor)
        self._cache = TensorCache(cache_folder(vae))
        missing = self._missing(samples)
        # Nobody may look for what is missing after others have begun to write it.
        wait()
        share = _share(missing, corpus, rank, world)
        if share:
            shown = f"{len(missing):,} of {len(samples):,} images to encode" if rank == 0 else None
            _encode(vae, corpus, share, self._cache, shown)
        wait()
        self._cache.refresh()
        # Machines without a common disk do not see each other's part.
        rest = self._missing(samples)
        if rest:
            _encode(vae, corpus, rest, self._cache, f"{len(rest):,} images not on this disk")

    def _missing(self, samples: Sequence[Sample]) -> list[Sample]:
        return [samples[place] for place in self._cache.missing([_key(one) for one in samples])]

    def draw(self, batch: Sequence[Sample], draws: Sequence[torch.Generator]) -> Tensor:
        """A fresh posterior sample per image, shifted and scaled: fp32 (B, 16, h, w) on the CPU.

        The images are of one scale; image i's noise comes from the CPU generator `draws[i]` alone.
        """
        moments = self._cache.read([_key(one) for one in batch])
        mean, std = moments["mean"].float(), moments["std"].float()
        noise = torch.stack([torch.randn(mean.shape[1:], generator=draw) for draw in draws])
        return (mean + std * noise - self._shift) * self._scaling


def cache_folder(vae: nn.Module) -> Path:
    """Where latents of this autoencoder live; a name of its weights, dtype and kind of device."""
    first = next(vae.parameters())
    name = f"{weights_hash(vae)[:16]}-{str(first.dtype).removeprefix('torch.')}-{first.device.type}"
    return project_root() / ".dermaflux" / "cache" / "latents" / name


def weights_hash(module: nn.Module) -> str:
    """sha256 of names, dtypes, shapes and bytes of all weights and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\0".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _key(one: Sample) -> bytes:
    return key(_VERSION, one.sha256, one.scale)


def _share(samples: Sequence[Sample], corpus: Path, rank: int, world: int) -> list[Sample]:
    """One process's contiguous part, in pixels, of the corpus in its order on disk."""
    if not samples:
        return []
    by_id = {one.image_id: one for one in samples}
    stored = table.metadata(corpus, ["image_id"])["image_id"]
    ordered = [by_id[image_id] for image_id in stored if image_id in by_id]
    pixels = np.array([one.scale**2 for one in ordered], dtype=np.int64)
    middles = np.cumsum(pixels) - pixels / 2
    owners = (middles * world / pixels.sum()).astype(int)
    return [one for one, owner in zip(ordered, owners, strict=True) if owner == rank]


def _encode(
    vae: AutoencoderKL, corpus: Path, share: Sequence[Sample], cache: TensorCache, shown: str | None
) -> None:
    by_id = {one.image_id: one for one in share}
    size = vae.dtype.itemsize * 2 * vae.config.latent_channels
    needed = sum(size * (one.scale // _DOWNSAMPLING) ** 2 for one in share)
    reserve(cache.folder, needed, "free some space or lower finetune.maximum_images")
    if shown:
        print(f"latents: {shown}, this process's share takes {needed / 1e9:,.2f} GB of disk")
    waiting: dict[int, list[tuple[bytes, Tensor]]] = {}
    stream = ((by_id[image_id], encoded) for image_id, encoded in table.images(corpus, by_id))
    with progress("finetune.latents", len(share)) as advance, cache.writer() as writer:

        def encode(group: Sequence[tuple[bytes, Tensor]]) -> None:
            moments = posterior(vae, [picture for _, picture in group])
            for (name, _), mean, std in zip(group, *moments, strict=True):
                writer.add(name, {"mean": mean, "std": std})
            advance(len(group))

        for one, picture in _decoded(stream):
            group = waiting.setdefault(one.scale, [])
            group.append((_key(one), picture))
            if len(group) == _together(one.scale):
                encode(waiting.pop(one.scale))
        for scale in sorted(waiting):
            encode(waiting[scale])


def _together(scale: int) -> int:
    return max(1, _ENCODED_PIXELS // scale**2)


@torch.no_grad()
def posterior(vae: AutoencoderKL, pictures: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and deviation, each (B, 16, h, w), of uint8 (3, scale, scale) pictures of one scale.

    The batch always has the size of a full group: kernels round differently at other sizes, and
    an image's latent must not depend on how many happened to be missing from the cache.
    """
    short = _together(pictures[0].shape[-1]) - len(pictures)
    images = torch.stack([*pictures, *[pictures[-1]] * short]).to(vae.device)
    found = vae.encode((images.float() / 127.5 - 1).to(vae.dtype)).latent_dist
    return found.mean[: len(pictures)], found.std[: len(pictures)]


def _decoded(stream: Iterable[tuple[Sample, bytes]]) -> Iterator[tuple[Sample, Tensor]]:
    """Decode on all cores, ahead of the autoencoder, in the order of the stream."""
    waiting: deque[Any] = deque()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for one, encoded in stream:
            waiting.append((one, pool.submit(_picture, one, encoded)))
            if len(waiting) > _AHEAD:
                done, picture = waiting.popleft()
                yield done, picture.result()
        while waiting:
            done, picture = waiting.popleft()
            yield done, picture.result()


def _picture(one: Sample, encoded: bytes) -> Tensor:
    """uint8 (3, scale, scale); the centre of images that are not square."""
    from PIL import Image, ImageOps

    try:
        picture = decode_image(encoded)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"image {one.image_id} of the corpus cannot be decoded ({error}); run the stage "
            "`ingest` again"
        ) from None
    if picture.size != (one.scale, one.scale):
        picture = ImageOps.fit(picture, (one.scale, one.scale), Image.Resampling.BICUBIC)
    pixels: Pixels = np.array(picture)
    return torch.from_numpy(pixels).permute(2, 0, 1)
