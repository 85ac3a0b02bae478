"""Out-of-distribution detection: does an image look like the skin lesions of training?

A classifier returns a probability for any image, even a page of text, so a registered model also
stores the distribution of its training images in two views: the network's last features before the
classification layer, and simple statistics of colour and texture. The distance in a view is the
Mahalanobis distance (Lee et al. 2018, https://arxiv.org/abs/1807.03888, with one Gaussian, since
the class does not matter here), with the covariance shrunk by Ledoit and Wolf (2004). It is divided
by the same quantile of the validation images in each view, and the larger one is used. An image
beyond the chosen quantile of the validation images is out of distribution. That fixes the fraction
of lesions that are flagged; which other images are flagged can only be measured. Pure functions on
arrays, apart from `find`, `read` and `write`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dermaflux.classifiers.model import network
from dermaflux.core.arrays import Array
from dermaflux.core.files import read_tensors, reading

FILE = "ood.safetensors"
_FORMER_FILE = "familiarity.safetensors"  # of versions registered before FILE had its name
_FLOOR = 1e-3  # added before logarithms: a quarter of a grey level
_VIEWS = 2
_LEVELS = 4  # octaves of texture


@dataclass(frozen=True)
class OODDetector:
    """Gaussians of the two views, and the distance beyond which an image is out of distribution."""

    means: tuple[Array, ...]
    """(D,) of each view."""
    precisions: tuple[Array, ...]
    """(D, D) of each view: inverse covariance."""
    scales: tuple[float, ...]
    """The chosen quantile of the validation images' distances in each view."""
    threshold: float
    """The same quantile of the larger of the two scaled distances; close to 1."""

    def distances(self, views: Sequence[Array]) -> Array:
        """(N,) scaled distances of images whose views are (N, D)."""
        scaled = [
            _mahalanobis(view, mean, precision) / scale
            for view, mean, precision, scale in zip(
                views, self.means, self.precisions, self.scales, strict=True
            )
        ]
        return np.asarray(np.max(scaled, axis=0))

    def is_ood(self, views: Sequence[Array]) -> Array:
        """(N,) bool: whether each image is out of distribution."""
        return np.asarray(self.distances(views) > self.threshold)


def fit(training: Sequence[Array], validation: Sequence[Array], quantile: float) -> OODDetector:
    """Gaussians of the training views (N, D); `quantile` of the validation images pass."""
    from sklearn.covariance import LedoitWolf

    gaussians = [LedoitWolf().fit(view) for view in training]
    means = tuple(gaussian.location_ for gaussian in gaussians)
    precisions = tuple(gaussian.precision_ for gaussian in gaussians)
    scales = tuple(
        float(np.quantile(_mahalanobis(view, mean, precision), quantile))
        for view, mean, precision in zip(validation, means, precisions, strict=True)
    )
    unscaled = OODDetector(means, precisions, scales, 1.0)
    threshold = float(np.quantile(unscaled.distances(validation), quantile, method="higher"))
    return OODDetector(means, precisions, scales, threshold)


def _mahalanobis(view: Array, mean: Array, precision: Array) -> Array:
    centred = view - mean
    return np.asarray(np.sqrt(np.einsum("nd,de,ne->n", centred, precision, centred)))


def views(model: nn.Module, config: dict[str, Any], pixels: Array) -> tuple[Array, Array]:
    """Both views of uint8 images (N, S, S, 3), S = config["image_size"]."""
    return features(model, config, pixels), appearance(pixels)


def features(model: nn.Module, config: dict[str, Any], pixels: Array, batch: int = 128) -> Array:
    """(N, D) float64 inputs of the classification layer. Leaves the model in evaluation mode."""
    device = next(model.parameters()).device
    model.eval()
    batches = []
    with torch.inference_mode():
        for first in range(0, len(pixels), batch):
            images = torch.from_numpy(pixels[first : first + batch]).to(device)
            spatial = model.forward_features(  # type: ignore[operator]
                network.normalise(network.unit(images), config)
            )
            last = model.forward_head(spatial, pre_logits=True)  # type: ignore[operator]
            batches.append(last.double().cpu().numpy())
    return np.concatenate(batches)


def appearance(pixels: Array, batch: int = 128) -> Array:
    """(N, 31) float64 statistics of colour and texture of uint8 images (N, S, S, 3).

    Mean, log standard deviation and border contrast of lightness and two opponent colours; the log
    energy of each in every octave; the log fractions of pixels that are almost black, almost white
    and grey; and the anisotropy of the texture.
    """
    rows = [_appearance(pixels[first : first + batch]) for first in range(0, len(pixels), batch)]
    return np.concatenate(rows)


def _appearance(pixels: Array) -> Array:
    red, green, blue = np.moveaxis(pixels.astype(np.float64) / 255, 3, 0)
    channels = np.stack([(red + green + blue) / 3, red - green, (red + green) / 2 - blue], axis=1)
    side = channels.shape[2]
    rim = np.ones((side, side), bool)
    rim[side // 8 : -(side // 8), side // 8 : -(side // 8)] = False
    columns = [
        channels.mean((2, 3)),
        np.log(channels.std((2, 3)) + _FLOOR),
        channels[:, :, rim].mean(2) - channels[:, :, ~rim].mean(2),
    ]
    level = channels
    for _ in range(_LEVELS):
        coarse = _halved(level)
        detail = level[:, :, : 2 * coarse.shape[2], : 2 * coarse.shape[3]] - coarse.repeat(
            2, axis=2
        ).repeat(2, axis=3)
        columns.append(np.log(detail.std((2, 3)) + _FLOOR))
        level = coarse
    light = channels[:, 0]
    across, down = np.diff(light, axis=2), np.diff(light, axis=1)
    steps = np.log(np.abs(np.stack([across.mean((1, 2)), down.mean((1, 2))], 1)) + _FLOOR)
    edges = np.stack([np.abs(across).mean((1, 2)), np.abs(down).mean((1, 2))], axis=1)
    spread = np.ptp(np.stack([red, green, blue], axis=1), axis=1)
    shares = [(light < 0.04), (light > 0.96), (spread < 0.04)]
    columns += [
        np.log(np.stack([share.mean((1, 2)) for share in shares], axis=1) + _FLOOR),
        np.abs(np.log(edges[:, :1] + _FLOOR) - np.log(edges[:, 1:] + _FLOOR)),
        steps,
    ]
    return np.concatenate(columns, axis=1)


def _halved(level: Array) -> Array:
    """Means of 2 x 2 pixels of (N, C, H, W); an odd last row or column is dropped."""
    number, channels, height, width = level.shape
    even = level[:, :, : height // 2 * 2, : width // 2 * 2]
    blocks = even.reshape(number, channels, height // 2, 2, width // 2, 2)
    return np.asarray(blocks.mean((3, 5)))


def find(folder: Path) -> OODDetector | None:
    """The detector of a registered classifier folder, under its present or former file name.

    None when the folder has no detector; raises what safetensors raises for a damaged file.
    """
    paths = [folder / name for name in (FILE, _FORMER_FILE) if (folder / name).is_file()]
    return read(paths[0]) if paths else None


def write(detector: OODDetector, path: Path) -> None:
    """Store as safetensors."""
    from safetensors.numpy import save_file

    arrays = {"scales": np.array(detector.scales), "threshold": np.array(detector.threshold)}
    for view in range(_VIEWS):
        arrays[f"mean.{view}"] = detector.means[view]
        arrays[f"precision.{view}"] = np.ascontiguousarray(detector.precisions[view])
    save_file(arrays, path)


def read(path: Path) -> OODDetector:
    """A detector stored by `write`; raises `InputError` for a damaged file."""
    stage = "`dvc repro promote`"
    arrays = {name: tensor.numpy() for name, tensor in read_tensors(path, stage).items()}
    with reading(path, stage):
        return _detector(arrays)


def _detector(arrays: Mapping[str, Array]) -> OODDetector:
    return OODDetector(
        means=tuple(arrays[f"mean.{view}"] for view in range(_VIEWS)),
        precisions=tuple(arrays[f"precision.{view}"] for view in range(_VIEWS)),
        scales=tuple(float(scale) for scale in arrays["scales"]),
        threshold=float(arrays["threshold"]),
    )
