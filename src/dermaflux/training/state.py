"""How a training optimises, and everything that its checkpoint restores.

Reads and writes the checkpoint, and the curves beside it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dermaflux.training.curves import CurveFile, Curves, whole
from dermaflux.training.ema import MovingAverage

if TYPE_CHECKING:
    from dermaflux.core.checkpoints import Checkpoint
    from dermaflux.params.fields import Optimisation
    from dermaflux.params.runtime import FinetuneRuntime


@dataclass(frozen=True)
class Settings:
    """How `fit` optimises."""

    steps: int
    learning_rate: float
    """Peak, after the warm-up."""
    warmup_steps: int
    maximum_gradient_norm: float
    checkpoint_steps: int
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    ema_decay: float | None = None
    """Decay of the moving average of the weights; None: the last weights are kept."""
    log_steps: int = 20
    parameter_groups: Sequence[Mapping[str, Any]] | None = None
    """Optimiser groups in torch's form, which together hold each weight once; None: one group.

    `timm.optim.param_groups_weight_decay(model, decay)` makes those that spare biases and norms
    from weight decay. A group's `lr_scale` multiplies its learning rate, as in timm.
    """
    autocast: torch.dtype | None = None
    """bfloat16: forward passes run under autocast. float16 would need loss scaling."""

    @classmethod
    def of(
        cls,
        settings: Optimisation,
        runtime: FinetuneRuntime,
        steps: int,
        weight_decay: float,
        betas: tuple[float, float],
        autocast: torch.dtype | None = None,
    ) -> Settings:
        """Those of a generator's parameters, with `steps` where epochs decide them."""
        return cls(
            steps=steps,
            learning_rate=settings.learning_rate,
            warmup_steps=settings.warmup_steps,
            maximum_gradient_norm=settings.maximum_gradient_norm,
            checkpoint_steps=runtime.checkpoint_steps,
            weight_decay=weight_decay,
            betas=betas,
            ema_decay=settings.ema_decay,
            log_steps=runtime.log_steps,
            autocast=autocast,
        )


class TrainingState:
    """Weights, optimiser, average, position and curves: everything that a checkpoint restores.

    Only the `main` process writes the checkpoint and the curves; all of them read it.
    """

    def __init__(
        self,
        name: str,
        weights: Mapping[str, nn.Parameter],
        settings: Settings,
        saved: Checkpoint,
        main: bool,
    ) -> None:
        self.name, self.weights, self.settings = name, weights, settings
        self.step = 0
        """Optimiser steps done."""
        self.optimiser = torch.optim.AdamW(
            _groups(weights, settings.parameter_groups),
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=next(iter(weights.values())).device.type == "cuda",
        )
        decay = settings.ema_decay
        self.average = MovingAverage(weights, decay) if decay is not None else None
        self._saved = saved
        self._files: dict[str, CurveFile] = {}
        if main:
            self._files = {name: CurveFile(self._path(name)) for name in ("training", "events")}

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Inside the block the model holds the weights that will be kept."""
        return self.average.in_place() if self.average is not None else contextlib.nullcontext()

    def update(self, learning_rate: float) -> None:
        """One optimiser step with the present gradients."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate * group.get("lr_scale", 1.0)
        self.optimiser.step()
        if self.average is not None:
            self.average.update(self.step)
        self.step += 1

    def append(self, curve: str, row: Mapping[str, float]) -> None:
        """Add a row to the curve `training` or `events`."""
        if curve in self._files:
            self._files[curve].append(row)

    def curves(self) -> Curves:
        """All rows so far."""
        return Curves(**{name: file.rows() for name, file in self._files.items()})

    def save(self) -> None:
        """Write the checkpoint, after the curves that it counts on."""
        average = self.average.values if self.average is not None else {}
        sizes = {name: file.sync() for name, file in self._files.items()}
        self._saved.save(
            {
                "phase": self.name,
                "step": self.step,
                "weights": {name: weight.detach().cpu() for name, weight in self.weights.items()},
                "optimiser": self.optimiser.state_dict(),
                "average": {name: value.cpu() for name, value in average.items()},
                "curves": sizes,
            }
        )

    def load(self) -> None:
        """Continue from the checkpoint when there is one of this training and its curves are whole.

        All processes decide alike: the main one only cuts a file to the size that all ask for.
        """
        state = self._saved.load("phase", "step", "weights", "optimiser", "average", "curves")
        sizes: Mapping[str, int] = {}
        if state is not None and state["phase"] == self.name:
            sizes = state["curves"]
        short = [name for name in sizes if not whole(self._path(name), sizes[name])]
        if state is not None and sizes and not short and not self._restored(state):
            sizes = {}
        elif short and self._files:
            print(
                f"{self._path(short[0])} has lost rows that its checkpoint counts on; {self.name} "
                "starts from its first step"
            )
        for name, file in self._files.items():
            file.truncate(0 if short else sizes.get(name, 0))

    def _restored(self, state: Mapping[str, Any]) -> bool:
        """Whether the state is one of these weights; then it is theirs, else it is removed."""
        stored = [state["weights"], *([state["average"]] if self.average is not None else [])]
        if not self._saved.fits(self.weights, *stored):
            return False
        if not self._saved.load_optimizer(self.optimiser, state["optimiser"]):
            return False
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(state["weights"][name])
        if self.average is not None:
            self.average.load(state["average"])
        self.step = state["step"]
        return True

    def _path(self, curve: str) -> Path:
        return self._saved.file(f"{curve}.jsonl")

    def close(self) -> None:
        """Close the files of the curves."""
        for file in self._files.values():
            file.close()


def _groups(
    weights: Mapping[str, nn.Parameter], groups: Sequence[Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """The groups as torch takes them; `ValueError` unless they hold each weight exactly once."""
    if groups is None:
        return [{"params": list(weights.values())}]
    grouped = [id(weight) for group in groups for weight in group["params"]]
    if sorted(grouped) != sorted(map(id, weights.values())):
        raise ValueError(
            f"parameter_groups hold {len(grouped)} weights, {len(set(grouped))} of them different, "
            f"and the objective has {len(weights)}; each must be in exactly one group"
        )
    return [dict(group) for group in groups]
