"""Cross-entropy on augmented images; epochs are compared by class scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dermaflux.classifiers.data.arm_plan import ArmPlan
from dermaflux.classifiers.data.samples import Images
from dermaflux.classifiers.model import network
from dermaflux.classifiers.recipes.classification import augmentation
from dermaflux.classifiers.recipes.classification.loss import cross_entropy
from dermaflux.core.arrays import Array


@dataclass(frozen=True)
class Supervised:
    """A `dermaflux.classifiers.recipes.protocol.Recipe`."""

    config: dict[str, Any]
    """Of `network.configure`."""
    plan: ArmPlan

    def build(self, start: Path | None) -> nn.Module:
        """The classifier of the config; only its last layer learns where the plan says so."""
        net = network.build(self.config, start)
        if self.plan.last_layer_only:
            network.freeze(net)
        return net

    def augment(self, images: Tensor, draw: torch.Generator) -> Tensor:
        """As `train.augmentation`, or the arm, says."""
        return augmentation.augment(images, self.plan.augmentation, draw)

    def loss(self, net: Callable[..., Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy in nats."""
        logits = net(network.normalise(images, self.config))
        return cross_entropy(logits.float(), labels)

    def scores(self, net: nn.Module, images: Images) -> Array | None:
        """Class probabilities."""
        return network.probabilities(net, self.config, images)


class Unselected(Supervised):
    """The same, but for the epoch, which is the last: no validation image takes part."""

    def scores(self, net: nn.Module, images: Images) -> None:
        """None: epochs are not compared."""
