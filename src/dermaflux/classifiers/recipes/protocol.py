"""What a training recipe is: the network it builds, its loss, and what selects its best epoch.

A recipe is a package with a module `recipe` that has
`create(config: Mapping[str, Any], plan: ArmPlan) -> Recipe`, and a line in
`dermaflux.params.choices.RECIPES`. The training loop knows nothing else of it.

A recipe that first learns from images without labels has a module `pretraining` too, which is a
`Pretraining`. What it writes is a weights file with timm's names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dermaflux.classifiers.data.pretraining_set import Chosen
from dermaflux.classifiers.data.samples import Images
from dermaflux.core.arrays import Array
from dermaflux.core.checkpoints import Checkpoint
from dermaflux.core.distributed import Processes
from dermaflux.params import Params
from dermaflux.tracking.runs import Log


class Recipe(Protocol):
    """How a network is built and what it learns from a batch of images.

    Everything random comes from torch's global generator, which the loop seeds before `build` and
    before every epoch, or from the `draw` handed to `augment`: a run that was killed must end
    bit-equal to an unbroken one.
    """

    def build(self, start: Path | None) -> nn.Module:
        """A new network on the CPU, from the weights file `start` or from random weights.

        Parameters that must not learn do not require a gradient. Raises `InputError` when the
        weights do not fit.
        """

    def augment(self, images: Tensor, draw: torch.Generator) -> Tensor:
        """Augment float images (B, 3, S, S) in [0, 1]; runs in full precision.

        `draw` is a generator on the CPU.
        """

    def loss(self, net: Callable[..., Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of a batch, a float32 scalar; runs under autocast where precision is bf16.

        `images`: (B, 3, S, S) in [0, 1], augmented; `labels`: (B,) class numbers.
        """

    def scores(self, net: nn.Module, images: Images) -> Array | None:
        """Float64 class probabilities of uint8 images (N, S, S, 3), by which epochs are compared.

        (N,) of the second of two classes, or (N, K). An image's scores do not depend on which
        others are scored with it. None when there is nothing to select by; then the last epoch
        counts. May leave the network in evaluation mode.
        """


@dataclass(frozen=True)
class PretrainingRun:
    """What pre-training is given."""

    params: Params
    images: Chosen
    saved: Checkpoint
    log: Log
    processes: Processes


class Pretrained(Protocol):
    """What pre-training learned."""

    def save(self, folder: Path, figures: Path) -> dict[str, Any]:
        """Write `model.safetensors` and `config.json` into `folder`, pictures into `figures`.

        Returns the figures of the stage, with a `summary` in words.
        """


class Pretraining(Protocol):
    """The functions of a module `pretraining`."""

    def check(self, params: Params) -> None:
        """Raise `InputError` for parameters that cannot work; reads no image."""

    def train(self, run: PretrainingRun) -> Pretrained:
        """Train on from the checkpoint; a killed run must end bit-equal to an unbroken one.

        Called in every process that shares the run.
        """
