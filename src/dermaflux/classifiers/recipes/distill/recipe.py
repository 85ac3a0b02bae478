"""The recipe of a student: the supervised one, with the distillation loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from dermaflux.classifiers.model import network
from dermaflux.classifiers.recipes.classification.supervised import Supervised
from dermaflux.classifiers.recipes.distill.loss import distillation
from dermaflux.classifiers.recipes.distill.teacher import Teaching


@dataclass(frozen=True)
class Distill(Supervised):
    """A `dermaflux.classifiers.recipes.protocol.Recipe`; needs a teacher, so no name chooses it."""

    teacher: Teaching
    alpha: float
    temperature: float

    def loss(self, net: Callable[..., Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """Mean distillation loss in nats; teacher and student see the same augmented images."""
        logits = net(network.normalise(images, self.config)).float()
        return distillation(logits, self.teacher(images), labels, self.alpha, self.temperature)
