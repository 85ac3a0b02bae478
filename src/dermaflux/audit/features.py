"""Feature spaces in which the audit compares images.

`pixels`: the image downsampled to 32 x 32 in RGB, each channel normalised (D = 3072). Otherwise a
folder with `model.safetensors`, the weights of SqueezeNet 1.0 under torchvision's names (Iandola
et al. 2016): the spatial mean of its last feature map at 224 px (D = 512). Reads table folders;
writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from dermaflux.core.arrays import Array
from dermaflux.core.devices import automatic_device
from dermaflux.corpus.duplicates.signatures import SIDE
from dermaflux.errors import InputError
from dermaflux.progress import progress

Extractor = Callable[[Array], Array]
"""uint8 (B, S, S, 3) -> (B, D)."""
_LOW_PASS = 32
_SQUEEZENET = 224
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BATCH = 64


def side(space: str) -> int:
    """Side in pixels of the images that a feature space reads."""
    return _LOW_PASS if space == "pixels" else _SQUEEZENET


def symmetries(images: Array) -> Array:
    """(B, S, S, 3) -> (B, 8, S, S, 3): the square's eight symmetries, the identity first."""
    rotations = [np.rot90(images, quarter, axes=(1, 2)) for quarter in range(4)]
    return np.stack([*rotations, *(rotation[:, :, ::-1] for rotation in rotations)], axis=1)


def extractor(space: str) -> Extractor:
    """The function of a feature space. Raises `InputError` for a folder without the weights."""
    return _pixels if space == "pixels" else _squeezenet(Path(space))


def _pixels(images: Array) -> Array:
    mean, std = np.array(_MEAN, np.float32), np.array(_STD, np.float32)
    normalised: Array = (images.astype(np.float32) / 255 - mean) / std
    return normalised.reshape(len(images), -1)


def _squeezenet(folder: Path) -> Extractor:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from torchvision.models import squeezenet1_0

    path = folder / "model.safetensors"
    model = squeezenet1_0(weights=None)
    try:
        model.load_state_dict(load_file(path))
    except (FileNotFoundError, SafetensorError, RuntimeError) as error:
        problem = str(error).splitlines()[0]
        raise InputError(
            f"audit.features {str(folder)!r} contains no SqueezeNet 1.0 weights in {path.name} "
            f"({problem}); set it to `pixels` or to a folder that contains them"
        ) from None
    device = automatic_device()
    network = model.features.to(device).eval()
    mean = torch.tensor(_MEAN, device=device).view(1, 3, 1, 1)
    std = torch.tensor(_STD, device=device).view(1, 3, 1, 1)

    def extract(images: Array) -> Array:
        with torch.inference_mode():
            batch = torch.tensor(images, device=device)
            batch = batch.permute(0, 3, 1, 2).float() / 255
            return np.asarray(network((batch - mean) / std).mean(dim=(2, 3)).cpu().numpy())

    return extract


def thumbnails(folder: Path, image_ids: Sequence[str], split: str) -> Array:
    """Grey thumbnails uint8 (N, 64, 64) of images of a split, in the order of `image_ids`.

    Raises `InputError` when an image is missing.
    """
    return extract(folder, image_ids, split, SIDE, _grey).reshape(-1, SIDE, SIDE)


def _grey(images: Array) -> Array:
    """uint8 (B, S, S, 3) -> (B, S * S): luma of ITU-R BT.601, as Pillow rounds it."""
    from PIL import Image

    grey = [np.asarray(Image.fromarray(image).convert("L")) for image in images]
    return np.stack(grey).reshape(len(images), -1)


def extract(
    folder: Path,
    image_ids: Sequence[str],
    split: str,
    side: int,
    function: Extractor,
    symmetric: bool = False,
) -> Array:
    """Features (N, D) of images of a split, in the order of `image_ids`, read at `side` pixels.

    With `symmetric`, (N, 8, D): of each image's eight symmetries. Raises `InputError` when an image
    is missing.
    """
    from dermaflux.core import table

    index = {image_id: row for row, image_id in enumerate(image_ids)}
    features: Array = np.empty((0, 8, 1) if symmetric else (0, 1), np.float32)
    done = 0
    stream = table.decoded(folder, image_ids, split, side)
    with progress(f"audit.{folder.name}", len(image_ids)) as advance:
        while batch := list(islice(stream, _BATCH)):
            images = np.stack([pixels for _, pixels in batch])
            if symmetric:
                images = symmetries(images)
            of_batch = function(images.reshape(-1, *images.shape[-3:]))
            of_batch = of_batch.reshape(*images.shape[:-3], -1)
            if not done:
                features = np.empty((len(image_ids), *of_batch.shape[1:]), of_batch.dtype)
            features[[index[image_id] for image_id, _ in batch]] = of_batch
            done += len(batch)
            advance(len(batch))
    if done != len(image_ids):
        raise InputError(
            f"{folder} contains {done} of the {len(image_ids)} requested images of split {split}; "
            "run the stage that writes it again"
        )
    return features
