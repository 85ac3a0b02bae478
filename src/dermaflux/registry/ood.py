"""Whether a picture looks like the skin lesions a classifier was made from.

A classifier answers any picture, a text page too, so a registered model also holds how its own
training images look in two views: the network's last features before the classification layer, and
plain statistics of colour and texture. The distance in a view is Mahalanobis' (Lee et al. 2018,
https://arxiv.org/abs/1807.03888, with one Gaussian, as no class is wanted), with the covariance
shrunk by Ledoit and Wolf (2004); it is divided by the same quantile of the validation images in
each view, and the larger counts. A picture beyond the chosen quantile of the validation images is
out of distribution: by that choice a known share of lesions is flagged, and which other pictures
are is measured, not promised. Pure functions on arrays, apart from `read` and `write`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dermaflux.classifiers.model import network
from dermaflux.core.arrays import Array

FILE = "familiarity.safetensors"
_FLOOR = 1e-3  # added before logarithms: a quarter of a grey level
_VIEWS = 2
_LEVELS = 4  # octaves of texture


@dataclass(frozen=True)
class Familiarity:
    """Gaussians of the two views, and the distance from which a picture is unfamiliar."""

    means: tuple[Array, ...]
    """(D,) of each view."""
    precisions: tuple[Array, ...]
    """(D, D) of each view: inverse covariance."""
    scales: tuple[float, ...]
    """The distance in each view that the chosen share of validation images keeps."""
    threshold: float
    """The same for the larger of the two scaled distances; near 1."""

    def distances(self, views: Sequence[Array]) -> Array:
        """(N,) scaled distances of pictures whose views are (N, D)."""
        scaled = [
            _mahalanobis(view, mean, precision) / scale
            for view, mean, precision, scale in zip(
                views, self.means, self.precisions, self.scales, strict=True
            )
        ]
        return np.asarray(np.max(scaled, axis=0))

    def unfamiliar(self, views: Sequence[Array]) -> Array:
        """(N,) bool: out of distribution."""
        return np.asarray(self.distances(views) > self.threshold)


def fit(training: Sequence[Array], validation: Sequence[Array], fraction: float) -> Familiarity:
    """Gaussians of the training views (N, D); of the validation images `fraction` is familiar."""
    from sklearn.covariance import LedoitWolf

    gaussians = [LedoitWolf().fit(view) for view in training]
    means = tuple(one.location_ for one in gaussians)
    precisions = tuple(one.precision_ for one in gaussians)
    scales = tuple(
        float(np.quantile(_mahalanobis(view, mean, precision), fraction))
        for view, mean, precision in zip(validation, means, precisions, strict=True)
    )
    found = Familiarity(means, precisions, scales, 1.0)
    threshold = float(np.quantile(found.distances(validation), fraction, method="higher"))
    return Familiarity(means, precisions, scales, threshold)


def _mahalanobis(view: Array, mean: Array, precision: Array) -> Array:
    away = view - mean
    return np.asarray(np.sqrt(np.einsum("nd,de,ne->n", away, precision, away)))


def views(model: nn.Module, config: dict[str, Any], pixels: Array) -> tuple[Array, Array]:
    """Both views of uint8 pictures (N, S, S, 3), S = config["image_size"]."""
    return features(model, config, pixels), appearance(pixels)


def features(model: nn.Module, config: dict[str, Any], pixels: Array, batch: int = 128) -> Array:
    """(N, D) float64 inputs of the classification layer. Leaves the model in evaluation mode."""
    where = next(model.parameters()).device
    model.eval()
    found = []
    with torch.inference_mode():
        for first in range(0, len(pixels), batch):
            images = torch.from_numpy(pixels[first : first + batch]).to(where)
            spatial = model.forward_features(  # type: ignore[operator]
                network.normalise(network.unit(images), config)
            )
            last = model.forward_head(spatial, pre_logits=True)  # type: ignore[operator]
            found.append(last.double().cpu().numpy())
    return np.concatenate(found)


def appearance(pixels: Array, batch: int = 128) -> Array:
    """(N, 31) float64 statistics of colour and texture of uint8 pictures (N, S, S, 3).

    Mean, spread and mean of the border of lightness and two opponent colours; how much each varies
    from octave to octave, in logarithms; the shares of pixels that are almost black, almost white
    and grey; and how far texture prefers one direction.
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
    """Means of 2 x 2 pixels of (N, C, H, W); an odd row or column is left out."""
    number, channels, height, width = level.shape
    even = level[:, :, : height // 2 * 2, : width // 2 * 2]
    blocks = even.reshape(number, channels, height // 2, 2, width // 2, 2)
    return np.asarray(blocks.mean((3, 5)))


def write(found: Familiarity, path: Path) -> None:
    """Store as safetensors."""
    from safetensors.numpy import save_file

    arrays = {"scales": np.array(found.scales), "threshold": np.array(found.threshold)}
    for number in range(_VIEWS):
        arrays[f"mean.{number}"] = found.means[number]
        arrays[f"precision.{number}"] = np.ascontiguousarray(found.precisions[number])
    save_file(arrays, path)


def read(path: Path) -> Familiarity:
    """What `write` stored; raises what safetensors raises for a damaged file."""
    from safetensors.numpy import load_file

    arrays = load_file(path)
    return Familiarity(
        means=tuple(arrays[f"mean.{number}"] for number in range(_VIEWS)),
        precisions=tuple(arrays[f"precision.{number}"] for number in range(_VIEWS)),
        scales=tuple(float(scale) for scale in arrays["scales"]),
        threshold=float(arrays["threshold"]),
    )
