"""What sets the arms of a cell apart: which images are shown, how often, and what may learn.

Pure functions on labels. The control arms compare a gain of the mixture with other ways to add as
many images: real images shown again (`repeated`), the same with strong augmentation (`augmented`),
and a network that learned no features at all (`random_features`).
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
class ArmPlan:
    """How an arm trains on its images."""

    shown: Array
    """(M,) int64 indices into the arm's images; each is shown once an epoch, so an index that
    occurs twice is shown twice."""
    augmentation: str
    """As `train.augmentation`."""
    last_layer_only: bool = False
    """Everything but the last layer stays at its initial weights."""


def plan(arm: Arm, labels: Array, added: Mapping[int, int], augmentation: str) -> ArmPlan:
    """How `arm` trains on images with `labels` (N,), class numbers.

    `added`: how many synthetic images of each class the mixture holds; the repeating arms show as
    many real ones of that class again, the first of its images first.
    """
    shown = np.arange(len(labels))
    if arm in REPEATING:
        repeats = [np.resize(np.flatnonzero(labels == k), n) for k, n in added.items() if n]
        shown = np.concatenate([shown, *repeats])
    return ArmPlan(
        shown,
        "strong" if arm == "augmented" else augmentation,
        last_layer_only=arm == "random_features",
    )


def order(labels: Array, sampling: str, draw: torch.Generator) -> Tensor:
    """(M,) int64 order of one epoch over M shown images with `labels` (M,).

    `shuffled`: each once. `balanced`: the classes equally often, to within one image; no image of
    a class is shown again before all images of that class have been shown.
    """
    total = len(labels)
    if sampling == "shuffled":
        return torch.randperm(total, generator=draw)
    present = np.unique(labels)
    extra = torch.randperm(len(present), generator=draw).numpy() < total % len(present)
    parts = []
    for label, one_more in zip(present, extra, strict=True):
        members = torch.from_numpy(np.flatnonzero(labels == label))
        count = total // len(present) + int(one_more)
        rounds = -(-count // len(members))
        passes = [members[torch.randperm(len(members), generator=draw)] for _ in range(rounds)]
        parts.append(torch.cat([members[:0], *passes])[:count])
    return torch.cat(parts)[torch.randperm(total, generator=draw)]
