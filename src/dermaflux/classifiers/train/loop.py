"""The training loop of every recipe: epochs, learning rate, selection of the best one, resuming.

Images are read batch by batch, ahead of the step that needs them, so memory does not grow with
their number. Everything random in epoch e follows from (seed, e), so a run that continues from a
checkpoint ends bit-equal to an unbroken one on the CPU, and no random state needs saving. The
result is the epoch with the best ROC-AUC on the validation images (the earliest of equals; of
diagnoses the mean of each against the rest), or the last one of a recipe without scores.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dermaflux.classifiers.data import arm_plan
from dermaflux.classifiers.data.samples import Samples
from dermaflux.classifiers.model import network
from dermaflux.classifiers.recipes.protocol import Recipe
from dermaflux.classifiers.train import optimizer
from dermaflux.classifiers.train.selection import auc_of, better, selection
from dermaflux.core.arrays import Array
from dermaflux.core.checkpoints import Checkpoint
from dermaflux.core.decode_ahead import decode_ahead
from dermaflux.core.devices import automatic_device
from dermaflux.core.seeds import derived_seed, generator
from dermaflux.core.torch_compile import compiled_forward
from dermaflux.errors import InputError
from dermaflux.params import Model, Train
from dermaflux.progress import progress
from dermaflux.tracking.runs import Log
from dermaflux.training.freed_memory import retain_freed_memory
from dermaflux.training.schedule import lr_scale

_SAVING_SHARE = 0.1  # of the time: a ViT-B with its optimiser takes seconds to write
_BATCHES_AHEAD = 4  # read while the device computes


@dataclass(frozen=True)
class TrainingResult:
    """A trained network at its best epoch."""

    weights: dict[str, Tensor]
    epoch: int
    """1 is the first."""
    validation: Array | None
    """(N,) or (N, K) scores of the validation images, float64; None of a recipe without scores."""
    history: list[dict[str, float]]
    """One row per epoch: epoch, loss, learning_rate, and validation_auc where there are scores."""

    @property
    def validation_auc(self) -> float:
        """ROC-AUC on the validation images at `epoch`; NaN of a recipe without scores."""
        return self.history[self.epoch - 1].get("validation_auc", float("nan"))


def fit(
    recipe: Recipe,
    model: Model,
    settings: Train,
    training: Samples,
    validation: Samples,
    seed: int,
    saved: Checkpoint,
    log: Log,
    shown: Array | None = None,
    start: Path | None = None,
) -> TrainingResult:
    """Train, continuing from `saved`; the result stays there, where `recall` finds it.

    `shown` (M,) are the indices of the training images that an epoch shows, each once if None;
    `start` is the file of initial weights. Raises `InputError` when the loss is not finite.
    """
    if shown is None:
        shown = np.arange(len(training.labels))
    running = _Training(recipe, model, settings, training, seed, shown, start)
    state = saved.load("network", "optimizer", "history", "best")
    if state is not None and not (
        saved.fits(running.net.state_dict(), state["network"])
        and saved.load_optimizer(running.optimizer, state["optimizer"])
    ):
        state = None
    return _result(running.run(validation, state, saved, log))


def recall(saved: Checkpoint) -> TrainingResult | None:
    """The result of a training that ended, or None."""
    state = saved.load()
    try:
        return _result(state) if state is not None and "result" in state else None
    except (KeyError, TypeError, AttributeError) as error:
        saved.reject(f"its result cannot be used: {error!r}")
        return None


def _result(state: dict[str, Any]) -> TrainingResult:
    result = state["result"]
    scores = result["validation"]
    return TrainingResult(
        result["weights"],
        result["epoch"],
        None if scores is None else scores.numpy(),
        result["history"],
    )


class _Training:
    """Network, optimiser and images of one run."""

    def __init__(
        self,
        recipe: Recipe,
        model: Model,
        settings: Train,
        training: Samples,
        seed: int,
        shown: Array,
        start: Path | None,
    ) -> None:
        self.recipe, self.model, self.settings, self.seed = recipe, model, settings, seed
        self.device = automatic_device()
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        else:
            retain_freed_memory()
        torch.manual_seed(derived_seed(seed, "weights"))
        net = recipe.build(start)
        self.net = net.to(self.device).to(memory_format=torch.channels_last)
        self.forward = compiled_forward(self.net) if settings.compile else self.net
        self.optimizer = optimizer.create(settings, self.net, model.learning_rate)
        self.images = training.pixels
        self.labels = torch.from_numpy(training.labels).long()
        self.shown = torch.from_numpy(shown)
        self.shown_labels = training.labels[shown]
        self.steps = math.ceil(len(shown) / settings.batch)

    def run(
        self, validation: Samples, state: dict[str, Any] | None, saved: Checkpoint, log: Log
    ) -> dict[str, Any]:
        """All epochs that `state` has not seen; returns and saves the finished state."""
        history: list[dict[str, float]] = []
        best: dict[str, Any] = {}
        if state is not None:
            self.net.load_state_dict(state["network"])
            history, best = state["history"], state["best"]
            print(f"continues after epoch {len(history)} of {self.settings.epochs}", flush=True)
            for row in history:
                _report(row, log)
        chosen = selection(validation.labels, self.settings.selection_images)
        judges = validation.take(chosen)
        next_save = 0.0
        done, total = len(history) * self.steps, self.settings.epochs * self.steps
        with progress("train.steps", total, done) as advance:
            for epoch in range(len(history) + 1, self.settings.epochs + 1):
                loss = self._epoch(epoch, advance)
                scores = self.recipe.scores(self.net, judges.pixels)
                history.append(self._row(epoch, loss, judges.labels, scores))
                _report(history[-1], log)
                if better(history[-1], best):
                    best = self._candidate(history[-1], scores)
                if epoch < self.settings.epochs and time.monotonic() >= next_save:
                    next_save = self._save(saved, history, best)
        if best["validation"] is not None and len(chosen) < len(validation.labels):
            self.net.load_state_dict(best["weights"])
            scores = self.recipe.scores(self.net, validation.pixels)
            best["validation"] = torch.from_numpy(scores)
        result = {name: best[name] for name in ("weights", "epoch", "validation")}
        finished = {"result": {**result, "history": history}}
        saved.save(finished)
        return finished

    def _epoch(self, epoch: int, advance: Callable[..., None]) -> float:
        """One pass over the shown images in a new order; returns the mean loss."""
        draw = generator(self.seed, "epoch", epoch)
        torch.manual_seed(derived_seed(self.seed, "dropout", epoch))
        order = self.shown[arm_plan.order(self.shown_labels, self.settings.sampling, draw)]
        self.net.train()
        total = torch.zeros((), device=self.device)
        # Equal batches, none larger than asked: a last batch of one image upsets batch norm.
        batches = decode_ahead(self._read, order.tensor_split(self.steps), _BATCHES_AHEAD, 1)
        with closing(batches):
            for step, (pixels, labels) in enumerate(batches):
                self._set_rate((epoch - 1) * self.steps + step)
                pixels = pixels.to(self.device, non_blocking=True)
                labels = labels.to(self.device, non_blocking=True)
                images = self.recipe.augment(network.unit(pixels), draw)
                with torch.autocast(
                    self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"
                ):
                    loss = self.recipe.loss(self.forward, images, labels)
                self.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
                total += loss.detach() * len(labels)
                advance(1)
        mean = float(total) / len(order)
        if not math.isfinite(mean):
            raise InputError(
                f"the loss is {mean} after epoch {epoch}; lower the learning rate "
                f"{self.model.learning_rate:g} of {self.model.name}"
            )
        return mean

    def _read(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (B, S, S, 3) and labels (B,) of one batch, ready to be copied to the device."""
        pixels, labels = network.read(self.images, indices.numpy()), self.labels[indices]
        if self.device.type == "cuda":
            return pixels.pin_memory(), labels.pin_memory()
        return pixels, labels

    def _set_rate(self, step: int) -> None:
        share = lr_scale(
            step, self.settings.epochs * self.steps, self.settings.warmup_epochs * self.steps
        )
        optimizer.set_rate(self.optimizer, self.model.learning_rate * share)

    def _row(
        self, epoch: int, loss: float, labels: Array, scores: Array | None
    ) -> dict[str, float]:
        current = max(group["lr"] for group in self.optimizer.param_groups)
        row = {"epoch": epoch, "loss": loss, "learning_rate": current}
        return row if scores is None else {**row, "validation_auc": auc_of(labels, scores)}

    def _candidate(self, row: dict[str, float], scores: Array | None) -> dict[str, Any]:
        """What is kept of an epoch that is the best so far."""
        return {
            "auc": row.get("validation_auc"),
            "epoch": row["epoch"],
            "weights": _on_cpu(self.net.state_dict()),
            "validation": None if scores is None else torch.from_numpy(scores),
        }

    def _save(self, saved: Checkpoint, history: list[dict[str, float]], best: Any) -> float:
        """Save, and return the earliest time of the next save."""
        began = time.monotonic()
        saved.save(
            {
                "network": self.net.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "history": history,
                "best": best,
            }
        )
        took = time.monotonic() - began
        return time.monotonic() + took * (1 / _SAVING_SHARE - 1)


def _on_cpu(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}


def _report(row: dict[str, float], log: Log) -> None:
    log.metrics({name: row[name] for name in row if name != "epoch"}, step=int(row["epoch"]))
