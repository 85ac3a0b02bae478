"""Latents of the training images: posterior mean and deviation, encoded once and kept on disk.

Reads corpus/ and `.dermaflux/cache/latents/`, writes the latter. An entry belongs to the image's
content, its scale, the autoencoder's weights, dtype and kind of device, never to a position in a
list: caches that lose step with captions are a known way to destroy the class signal
(huggingface/diffusers issue 14430). Both moments are kept, so that each step draws afresh.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from dermaflux.core import table
from dermaflux.core.arrays import Pixels
from dermaflux.core.decode_ahead import decode_ahead
from dermaflux.core.images import decode_image
from dermaflux.core.tensor_cache import TensorCache, key, reserve
from dermaflux.errors import InputError
from dermaflux.paths import project_root
from dermaflux.progress import progress

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderTiny

    from dermaflux.generators.data.images import Sample

    Autoencoder = AutoencoderKL | AutoencoderTiny

_VERSION = 1  # of how pixels become the autoencoder's input
_ENCODED_PIXELS = 16 * 128 * 128
"""Pixels encoded together: 16 images of 128 pixels, one of 512."""
_AHEAD = 64  # decoded images waiting for the autoencoder


class LatentSource(Protocol):
    """Samples latents of images from their cached posteriors."""

    def draw(self, samples: Sequence[Sample], generators: Sequence[torch.Generator]) -> Tensor:
        """A fresh posterior sample per image, shifted and scaled, (B, C, h, w) on the CPU."""
        ...


class Latents:
    """Samples latents of images; what the cache lacks is encoded first.

    An entry takes 32 kB for an image of 128 pixels and 512 kB for one of 512 in fp32, half of that
    in bf16. Afterwards the autoencoder is not needed any more.
    """

    def __init__(
        self,
        vae: Autoencoder,
        corpus: Path,
        samples: Sequence[Sample],
        rank: int = 0,
        world: int = 1,
        wait: Callable[[], None] = lambda: None,
    ) -> None:
        """Encode this process's share; `wait` returns when all `world` processes have called it.

        Raises `InputError` for an image that cannot be decoded or a disk without room.
        """
        self._shift = float(getattr(vae.config, "shift_factor", None) or 0.0)
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
        return [
            samples[index] for index in self._cache.missing([_key(sample) for sample in samples])
        ]

    def draw(self, samples: Sequence[Sample], generators: Sequence[torch.Generator]) -> Tensor:
        """A fresh posterior sample per image, shifted and scaled: fp32 (B, C, h, w) on the CPU.

        The images are of one scale; image i's noise comes from `generators[i]`, on the CPU, alone.
        """
        moments = self._cache.read([_key(sample) for sample in samples])
        mean, std = moments["mean"].float(), moments["std"].float()
        noise = torch.stack([torch.randn(mean.shape[1:], generator=g) for g in generators])
        return (mean + std * noise - self._shift) * self._scaling


def downsampling(vae: Autoencoder) -> int:
    """Pixels of the side of an image for each of its latent's."""
    config = vae.config
    levels = config.get("encoder_block_out_channels") or config["block_out_channels"]
    return int(2 ** (len(levels) - 1))


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


def _key(sample: Sample) -> bytes:
    return key(_VERSION, sample.sha256, sample.scale)


def _share(samples: Sequence[Sample], corpus: Path, rank: int, world: int) -> list[Sample]:
    """One process's contiguous part, in pixels, of the corpus in its order on disk."""
    if not samples:
        return []
    by_id = {sample.image_id: sample for sample in samples}
    stored = table.metadata(corpus, ["image_id"])["image_id"]
    ordered = [by_id[image_id] for image_id in stored if image_id in by_id]
    pixels = np.array([sample.scale**2 for sample in ordered], dtype=np.int64)
    middles = np.cumsum(pixels) - pixels / 2
    owners = (middles * world / pixels.sum()).astype(int)
    return [sample for sample, owner in zip(ordered, owners, strict=True) if owner == rank]


def _encode(
    vae: Autoencoder, corpus: Path, share: Sequence[Sample], cache: TensorCache, shown: str | None
) -> None:
    by_id = {sample.image_id: sample for sample in share}
    size = vae.dtype.itemsize * 2 * vae.config.latent_channels
    needed = sum(size * (sample.scale // downsampling(vae)) ** 2 for sample in share)
    reserve(cache.folder, needed, "free some space or lower finetune.maximum_images")
    if shown:
        print(f"latents: {shown}, this process's share takes {needed / 1e9:,.2f} GB of disk")
    waiting: dict[int, list[tuple[bytes, Tensor]]] = {}
    stream = ((by_id[image_id], encoded) for image_id, encoded in table.images(corpus, by_id))
    decoded = decode_ahead(_decoded, stream, _AHEAD)
    with progress("finetune.latents", len(share)) as advance, cache.writer() as writer:

        def encode(group: Sequence[tuple[bytes, Tensor]]) -> None:
            moments = posterior(vae, [pixels for _, pixels in group])
            for (name, _), mean, std in zip(group, *moments, strict=True):
                writer.add(name, {"mean": mean, "std": std})
            advance(len(group))

        for sample, pixels in decoded:
            group = waiting.setdefault(sample.scale, [])
            group.append((_key(sample), pixels))
            if len(group) == _group_size(sample.scale):
                encode(waiting.pop(sample.scale))
        for scale in sorted(waiting):
            encode(waiting[scale])


def _group_size(scale: int) -> int:
    return max(1, _ENCODED_PIXELS // scale**2)


@torch.no_grad()
def posterior(vae: Autoencoder, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and deviation, each (B, C, h, w), of images, uint8 (3, scale, scale), of one scale.

    An AutoencoderTiny gives the mean alone; its deviation is 0.

    The batch always has the size of a full group: kernels round differently at other sizes, and
    an image's latent must not depend on how many happened to be missing from the cache.
    """
    missing = _group_size(images[0].shape[-1]) - len(images)
    pixels = torch.stack([*images, *[images[-1]] * missing]).to(vae.device)
    encoded = vae.encode((pixels.float() / 127.5 - 1).to(vae.dtype))
    if hasattr(encoded, "latents"):
        mean = encoded.latents[: len(images)]
        return mean, torch.zeros_like(mean)
    latents = encoded.latent_dist
    return latents.mean[: len(images)], latents.std[: len(images)]


def _decoded(item: tuple[Sample, bytes]) -> tuple[Sample, Tensor]:
    """The sample with its pixels, uint8 (3, scale, scale): the centre of images not square."""
    from PIL import Image, ImageOps

    sample, encoded = item
    try:
        image = decode_image(encoded)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"image {sample.image_id} of the corpus cannot be decoded ({error}); run the stage "
            "`ingest` again"
        ) from None
    if image.size != (sample.scale, sample.scale):
        image = ImageOps.fit(image, (sample.scale, sample.scale), Image.Resampling.BICUBIC)
    pixels: Pixels = np.array(image)
    return sample, torch.from_numpy(pixels).permute(2, 0, 1)
