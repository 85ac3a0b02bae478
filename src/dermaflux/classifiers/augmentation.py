"""Augmentation of whole batches on the device: flips, quarter turns, light colour jitter.

Pure functions on tensors; every image of a batch draws its own. The random numbers come from a CPU
generator, so that each device augments alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

_JITTER = 0.1
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def turn(images: Tensor, across: Tensor, down: Tensor, transposed: Tensor) -> Tensor:
    """Apply one of the square's eight symmetries to each image of (B, 3, S, S).

    `across`, `down`, `transposed`: (B,) bool; mirror left to right, then top to bottom, then swap
    the two axes.
    """
    images = torch.where(across[:, None, None, None], images.flip(3), images)
    images = torch.where(down[:, None, None, None], images.flip(2), images)
    return torch.where(transposed[:, None, None, None], images.transpose(2, 3), images)


def jitter(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Scale brightness, contrast and saturation of (B, 3, H, W) in [0, 1] by (B,) factors.

    1 leaves an image as it is. Definitions of torchvision's `adjust_*`, but for the contrast's
    pivot, which is the mean of each channel; values are clamped to [0, 1] once, at the end.
    """
    weights = images.new_tensor(_LUMA).view(1, 3, 1, 1)
    images = images * brightness.view(-1, 1, 1, 1)
    mean = images.mean(dim=(2, 3), keepdim=True)
    images = mean + (images - mean) * contrast.view(-1, 1, 1, 1)
    grey = (images * weights).sum(dim=1, keepdim=True)
    return (grey + (images - grey) * saturation.view(-1, 1, 1, 1)).clamp(0, 1)


def augment(images: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """Augment (B, 3, S, S) in [0, 1] as `train.augmentation` says: none, flips or flips-colour."""
    if how == "none":
        return images
    count, device = len(images), images.device
    coins = torch.rand((3, count), generator=generator).to(device) < 0.5
    images = turn(images, *coins)
    if how == "flips-colour":
        factors = 1 + _JITTER * (2 * torch.rand((3, count), generator=generator) - 1)
        images = jitter(images, *factors.to(device))
    return images
