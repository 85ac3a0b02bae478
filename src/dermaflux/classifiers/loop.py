"""The training loop of one classifier on images that stay in device memory.

Everything random in epoch e follows from (seed, e), so a run that continues from a checkpoint ends
bit-equal to an unbroken one on the CPU, and no random state needs saving. The epoch with the best
ROC-AUC on the validation images is kept (the earliest of equals); of diagnoses it is the mean of
each one's against the rest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dermaflux.classifiers import arm_plan
from dermaflux.classifiers.arm_plan import Recipe
from dermaflux.classifiers.data.samples import Samples
from dermaflux.classifiers.model import network as supervised
from dermaflux.classifiers.recipes.supervised.augmentation import augment
from dermaflux.core.checkpoints import Checkpoint
from dermaflux.core.devices import automatic_device
from dermaflux.core.seeds import derived_seed, generator
from dermaflux.errors import InputError
from dermaflux.metrics.binary import auc
from dermaflux.metrics.multiclass import mauc
from dermaflux.params import Model, Train
from dermaflux.progress import progress
from dermaflux.tracking.runs import Log
from dermaflux.training import freed_memory
from dermaflux.training.schedule import rate
from dermaflux.training.torch_compile import compiled_forward

_MOMENTUM = 0.9  # of SGD: torchvision's and timm's recipes
_SAVING_SHARE = 0.1  # of the time: a ViT-B with its optimiser takes seconds to write


@dataclass(frozen=True)
class Fitted:
    """A trained classifier at its best epoch."""

    weights: dict[str, Tensor]
    epoch: int
    """1 is the first."""
    validation: np.ndarray[Any, Any]
    """(N,) or (N, K) probabilities of the validation images, float64."""
    history: list[dict[str, float]]
    """One row per epoch: epoch, loss, learning_rate, validation_auc."""

    @property
    def validation_auc(self) -> float:
        """ROC-AUC on the validation images at `epoch`."""
        return self.history[self.epoch - 1]["validation_auc"]


def fit(
    config: dict[str, Any],
    model: Model,
    settings: Train,
    training: Samples,
    validation: Samples,
    seed: int,
    saved: Checkpoint,
    log: Log,
    recipe: Recipe | None = None,
    weights: Path | None = None,
) -> Fitted:
    """Train on from `saved`, or from the start; raise `InputError` when the loss is not finite.

    `recipe` says how `training` is shown, each image once an epoch if None; `weights` is the file
    to start from. The result stays in `saved`, where `recall` finds it.
    """
    if recipe is None:
        recipe = arm_plan.recipe("real", training.labels, {}, settings.augmentation)
    running = _Training(config, model, settings, training, seed, recipe, weights)
    return _fitted(running.loop(validation, saved.load(), saved, log))


def recall(saved: Checkpoint) -> Fitted | None:
    """The result of a training that ended, or None."""
    state = saved.load()
    return _fitted(state) if state is not None and "fitted" in state else None


def _fitted(state: dict[str, Any]) -> Fitted:
    kept = state["fitted"]
    return Fitted(kept["weights"], kept["epoch"], kept["validation"].numpy(), kept["history"])


class _Training:
    """Network, optimiser and images of one run."""

    def __init__(
        self,
        config: dict[str, Any],
        model: Model,
        settings: Train,
        training: Samples,
        seed: int,
        recipe: Recipe,
        weights: Path | None,
    ) -> None:
        self.config, self.settings, self.seed, self.recipe = config, settings, seed, recipe
        self.peak = model.learning_rate
        self.device = automatic_device()
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        else:
            freed_memory.keep()
        torch.manual_seed(derived_seed(seed, "weights"))
        network = supervised.build(config, weights)
        if recipe.last_layer_only:
            supervised.freeze(network)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.forward = compiled_forward(self.network) if settings.compile else self.network
        self.optimizer = _optimizer(settings, self.network, self.peak)
        self.pixels = torch.from_numpy(training.pixels).to(self.device)
        self.labels = torch.from_numpy(training.labels).long().to(self.device)
        self.shown = torch.from_numpy(recipe.shown)
        self.shown_labels = training.labels[recipe.shown]
        self.steps = math.ceil(len(self.shown) / settings.batch)

    def loop(
        self, validation: Samples, state: dict[str, Any] | None, saved: Checkpoint, log: Log
    ) -> dict[str, Any]:
        """All epochs that `state` has not seen; returns and saves the finished state."""
        history: list[dict[str, float]] = []
        best: dict[str, Any] = {}
        if state is not None:
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            history, best = state["history"], state["best"]
            print(f"continues after epoch {len(history)} of {self.settings.epochs}", flush=True)
            for row in history:
                _report(row, log)
        judges = selected(validation.labels, self.settings.selection_images)
        next_save = 0.0
        done, total = len(history) * self.steps, self.settings.epochs * self.steps
        with progress("train.steps", total, done) as advance:
            for epoch in range(len(history) + 1, self.settings.epochs + 1):
                loss = self._epoch(epoch, advance)
                scores = self._scores(validation, judges)
                history.append(self._row(epoch, loss, _auc(validation.labels[judges], scores)))
                _report(history[-1], log)
                if not best or history[-1]["validation_auc"] > best["auc"]:
                    best = {
                        "auc": history[-1]["validation_auc"],
                        "epoch": epoch,
                        "weights": _on_cpu(self.network.state_dict()),
                        "validation": torch.from_numpy(scores),
                    }
                if epoch < self.settings.epochs and time.monotonic() >= next_save:
                    next_save = self._save(saved, history, best)
        if len(judges) < len(validation.labels):
            self.network.load_state_dict(best["weights"])
            every = np.arange(len(validation.labels))
            best["validation"] = torch.from_numpy(self._scores(validation, every))
        kept = {name: best[name] for name in ("weights", "epoch", "validation")}
        finished = {"fitted": {**kept, "history": history}}
        saved.save(finished)
        return finished

    def _scores(self, validation: Samples, places: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Probabilities of the validation images at `places`."""
        whole = len(places) == len(validation.labels)
        pixels = validation.pixels if whole else validation.pixels[places]
        return supervised.probabilities(self.network, self.config, pixels)

    def _epoch(self, epoch: int, advance: Callable[..., None]) -> float:
        """One pass over the shown images in a new order; returns the mean loss."""
        draw = generator(self.seed, "epoch", epoch)
        torch.manual_seed(derived_seed(self.seed, "dropout", epoch))
        order = self.shown[arm_plan.order(self.shown_labels, self.settings.sampling, draw)]
        self.network.train()
        total = torch.zeros((), device=self.device)
        # Equal batches, none larger than asked: a last batch of one image upsets batch norm.
        for step, where in enumerate(order.to(self.device).tensor_split(self.steps)):
            done = (epoch - 1) * self.steps + step
            self._set_rate(done)
            images = augment(supervised.unit(self.pixels[where]), self.recipe.augmentation, draw)
            with torch.autocast(
                self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"
            ):
                logits = self.forward(supervised.normalise(images, self.config))
            loss = _loss(logits.float(), self.labels[where])
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            total += loss.detach() * len(where)
            advance(1)
        mean = float(total) / len(order)
        if not math.isfinite(mean):
            raise InputError(
                f"the loss is {mean} after epoch {epoch}; lower the learning rate {self.peak:g} "
                f"of {self.config['name']}"
            )
        return mean

    def _set_rate(self, step: int) -> None:
        share = rate(
            step, self.settings.epochs * self.steps, self.settings.warmup_epochs * self.steps
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak * share

    def _row(self, epoch: int, loss: float, validation_auc: float) -> dict[str, float]:
        current = self.optimizer.param_groups[0]["lr"]
        return {
            "epoch": epoch,
            "loss": loss,
            "learning_rate": current,
            "validation_auc": validation_auc,
        }

    def _save(self, saved: Checkpoint, history: list[dict[str, float]], best: Any) -> float:
        """Save, and return the earliest time of the next save."""
        began = time.monotonic()
        saved.save(
            {
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "history": history,
                "best": best,
            }
        )
        took = time.monotonic() - began
        return time.monotonic() + took * (1 / _SAVING_SHARE - 1)


def selected(labels: np.ndarray[Any, Any], limit: int | None) -> np.ndarray[Any, Any]:
    """Places, ascending, of about `limit` of the validation images with `labels` (N,).

    Each class keeps its share, at least one image, evenly spread over the class's images in their
    order, which is by source. All when `limit` is None or large enough.
    """
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    parts = []
    for name in np.unique(labels):
        own = np.flatnonzero(labels == name)
        count = max(1, round(limit * len(own) / len(labels)))
        parts.append(own[np.linspace(0, len(own) - 1, count).round().astype(int)])
    return np.sort(np.concatenate(parts))


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats; logits (B, 1) of malignancy or (B, K), labels (B,) numbers."""
    if logits.shape[1] == 1:
        return nn.functional.binary_cross_entropy_with_logits(logits.squeeze(1), labels.float())
    return nn.functional.cross_entropy(logits, labels)


def _auc(labels: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> float:
    """ROC-AUC, of scores (N, K) the macro mean of each class against the rest."""
    return auc(labels, scores) if scores.ndim == 1 else mauc(labels, scores)


def _optimizer(settings: Train, network: nn.Module, rate: float) -> torch.optim.Optimizer:
    """Torch's own, over what may learn: decay for matrices and kernels, none for biases, norms."""
    learning = [weight for weight in network.parameters() if weight.requires_grad]
    groups: list[dict[str, Any]] = [
        {
            "params": [weight for weight in learning if weight.ndim >= 2],
            "weight_decay": settings.weight_decay,
        },
        {"params": [weight for weight in learning if weight.ndim < 2], "weight_decay": 0.0},
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=_MOMENTUM, fused=True)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=rate, fused=True)


def _on_cpu(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}


def _report(row: dict[str, float], log: Log) -> None:
    log.metrics({name: row[name] for name in row if name != "epoch"}, step=int(row["epoch"]))
