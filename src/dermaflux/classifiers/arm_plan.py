"""What sets the arms of a cell apart: which images are shown, how often, and what may learn.

Pure functions on labels. The controls hold a gain of the mixture against what else adds as many
images: real images shown again (`repeated`), the same with strong augmentation (`augmented`), and
a network that learned no features at all (`random_features`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dermaflux.core.arrays import Array
from dermaflux.params import REPEATING, Arm


@dataclass(frozen=True)
class Recipe:
    """How an arm trains on its images."""

    shown: Array
    """(M,) int64 places in the arm's images; each is shown once an epoch, so that a place that
    occurs twice is shown twice."""
    augmentation: str
    """As `train.augmentation`."""
    last_layer_only: bool = False
    """Everything but the classifier stays at its initial weights."""


def recipe(arm: Arm, labels: Array, added: Mapping[int, int], augmentation: str) -> Recipe:
    """How `arm` trains on images with `labels` (N,), class numbers.

    `added`: how many synthetic images of each class the mixture holds; the repeating arms show as
    many real ones of that class again, the first of its images first.
    """
    shown = np.arange(len(labels))
    if arm in REPEATING:
        again = [np.resize(np.flatnonzero(labels == one), n) for one, n in added.items() if n]
        shown = np.concatenate([shown, *again])
    return Recipe(
        shown,
        "strong" if arm == "augmented" else augmentation,
        last_layer_only=arm == "random_features",
    )


def order(labels: Array, sampling: str, draw: torch.Generator) -> Tensor:
    """(M,) int64 order of one epoch over M shown images with `labels` (M,).

    `shuffled`: each once. `balanced`: the classes equally often, give or take one; an image of a
    class that has to stretch comes again only when all of its class have come.
    """
    total = len(labels)
    if sampling == "shuffled":
        return torch.randperm(total, generator=draw)
    present = np.unique(labels)
    spare = torch.randperm(len(present), generator=draw).numpy() < total % len(present)
    parts = []
    for name, one_more in zip(present, spare, strict=True):
        own = torch.from_numpy(np.flatnonzero(labels == name))
        wanted = total // len(present) + int(one_more)
        rounds = -(-wanted // len(own))
        turns = [own[torch.randperm(len(own), generator=draw)] for _ in range(rounds)]
        parts.append(torch.cat([own[:0], *turns])[:wanted])
    return torch.cat(parts)[torch.randperm(total, generator=draw)]
