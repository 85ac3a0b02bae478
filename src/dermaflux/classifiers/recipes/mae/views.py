"""What an optimiser step shows: which images, cropped and mirrored how, hidden where. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dermaflux.classifiers.recipes.classification import augmentation
from dermaflux.core.seeds import generator

_STRETCH = math.log(4 / 3)
_CHANCES = 5
"""Random numbers of a crop."""


@dataclass(frozen=True)
class Steps:
    """The order of images, of which every one is shown once an epoch, in nearly equal batches."""

    images: int
    batch: int
    seed: int

    @property
    def per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        return -(-self.images // self.batch)

    def count(self, step: int) -> int:
        """Images of a step, without drawing the order of all."""
        fewest, larger = divmod(self.images, self.per_epoch)
        return fewest + (step % self.per_epoch < larger)

    def at(self, step: int) -> Tensor:
        """(B,) int64 indices of the images of a step, counted from 0."""
        epoch, number = divmod(step, self.per_epoch)
        draw = generator(self.seed, "pretrain", "order", epoch)
        return torch.randperm(self.images, generator=draw).tensor_split(self.per_epoch)[number]


def chances(seed: int, step: int, images: int, patches: int) -> tuple[Tensor, Tensor]:
    """(B, 5) uniform numbers for `crop`, and (B, N) whose largest hide a patch; on the CPU."""
    draw = generator(seed, "pretrain", "views", step)
    return (
        torch.rand(images, _CHANCES, generator=draw),
        torch.rand(images, patches, generator=draw),
    )


def crop(images: Tensor, chances: Tensor, area: tuple[float, float]) -> Tensor:
    """Random crops of (B, 3, S, S) at full size, half of them mirrored; `chances` (B, 5).

    torchvision's `RandomResizedCrop` with bilinear interpolation: a share of the image between the
    two of `area`, its sides at most 4:3.
    """
    share, stretch, x, y, coin = chances.to(images.device, non_blocking=True).unbind(1)
    side = (area[0] + (area[1] - area[0]) * share).sqrt()
    stretch = (_STRETCH * (stretch - 0.5)).exp()
    width, height = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
    x, y = (2 * x - 1) * (1 - width), (2 * y - 1) * (1 - height)
    mirrored = torch.where(coin < 0.5, -width, width)
    return augmentation.crop(images.contiguous(), mirrored, height, x, y, torch.zeros_like(x))
