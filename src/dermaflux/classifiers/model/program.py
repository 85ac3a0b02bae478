"""A classifier as a program of torch.export: one file that runs without the code of classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dermaflux.classifiers.model import network
from dermaflux.errors import InputError, one_line


class LogProbabilities(nn.Module):
    """uint8 RGB (1, S, S, 3), S the image size of the config, to float64 log-probabilities (1, K).

    Of labels malignancy K is 2: benign, malignant.
    """

    def __init__(self, net: nn.Module, config: dict[str, Any]) -> None:
        super().__init__()
        self._net, self._config = net, config

    def forward(self, pixels: Tensor) -> Tensor:
        """Double precision, so that images on which it is almost sure still differ."""
        logits = self._net(network.normalise(network.unit(pixels), self._config)).double()
        if network.binary(self._config["classes"]):
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        scores: Tensor = logits.log_softmax(dim=1)
        return scores


def save(net: nn.Module, config: dict[str, Any], path: Path) -> None:
    """Write `net`, a model of `network.build` on the CPU, as a program.

    Raises `InputError` for a network that torch.export cannot express.
    """
    side = config["image_size"]
    example = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    try:
        with torch.no_grad():
            program = torch.export.export(LogProbabilities(net, config).eval(), (example,))
    except Exception as error:  # whatever in a model's code cannot be traced
        raise InputError(
            f"torch.export cannot express {config['name']} ({one_line(error, 200)}); put another "
            "model first in train.architectures, or set synthesize.select to none"
        ) from None
    torch.export.save(program, path)
