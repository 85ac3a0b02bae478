"""The optimiser of every recipe: weight decay and learning rates by parameter group. Pure."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from dermaflux.params import Train

_MOMENTUM = 0.9  # of SGD: torchvision's and timm's recipes


def create(settings: Train, net: nn.Module, rate: float) -> torch.optim.Optimizer:
    """Torch's own, over what may learn: decay for matrices and kernels, none for biases, norms.

    With `layer_decay`, groups of timm whose `lr_scale` falls from the last layer to the first, and
    no decay for what the model names, as the MAE repository fine-tunes.
    """
    from timm.optim._param_groups import param_groups_layer_decay, param_groups_weight_decay

    if settings.layer_decay is None:
        groups = param_groups_weight_decay(net, settings.weight_decay)
    else:
        spared: Collection[str] = getattr(net, "no_weight_decay", tuple)()
        groups = param_groups_layer_decay(
            net, settings.weight_decay, spared, layer_decay=settings.layer_decay
        )
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=_MOMENTUM, fused=True)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=rate, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the last layer, and with it those of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
