"""The training loop of one classifier: AdamW on balanced images that stay in device memory.

Everything random in epoch e follows from (seed, e), so a run that continues from a checkpoint ends
bit-equal to an unbroken one on the CPU, and no random state needs saving. The epoch with the best
ROC-AUC on the validation images is kept (the earliest of equals).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dermaflux.checkpoints import Checkpoint
from dermaflux.classifiers import supervised
from dermaflux.classifiers.augmentation import augment
from dermaflux.classifiers.metrics import auc
from dermaflux.classifiers.samples import Samples
from dermaflux.errors import InputError
from dermaflux.params import Model, Train
from dermaflux.progress import progress
from dermaflux.schedule import rate
from dermaflux.seeds import derived_seed, generator
from dermaflux.tracking import Log

_SAVING_SHARE = 0.1  # of the time: a ViT-B with its optimiser takes seconds to write


@dataclass(frozen=True)
class Fitted:
    """A trained classifier at its best epoch."""

    weights: dict[str, Tensor]
    epoch: int
    """1 is the first."""
    validation: np.ndarray[Any, Any]
    """(N,) probabilities of the validation images, float64."""
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
) -> Fitted:
    """Train on from `saved`, or from the start; raise `InputError` when the loss is not finite.

    The result stays in `saved`, where `recall` finds it.
    """
    running = _Training(config, model, settings, training, seed)
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
        self, config: dict[str, Any], model: Model, settings: Train, training: Samples, seed: int
    ) -> None:
        self.config, self.settings, self.seed = config, settings, seed
        self.peak = model.learning_rate
        self.device = supervised.device()
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        torch.manual_seed(derived_seed(seed, "weights"))
        network = supervised.build(config, pretrained=model.pretrained)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(
            _decay_groups(self.network, settings.weight_decay), lr=self.peak, fused=True
        )
        self.pixels = torch.from_numpy(training.pixels).to(self.device)
        self.labels = torch.from_numpy(training.labels).float().to(self.device)
        self.steps = math.ceil(len(self.labels) / settings.batch)

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
        next_save = 0.0
        done, total = len(history) * self.steps, self.settings.epochs * self.steps
        with progress("train.steps", total, done) as advance:
            for epoch in range(len(history) + 1, self.settings.epochs + 1):
                loss = self._epoch(epoch, advance)
                scores = supervised.probabilities(self.network, self.config, validation.pixels)
                history.append(self._row(epoch, loss, auc(validation.labels, scores)))
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
        kept = {name: best[name] for name in ("weights", "epoch", "validation")}
        finished = {"fitted": {**kept, "history": history}}
        saved.save(finished)
        return finished

    def _epoch(self, epoch: int, advance: Callable[..., None]) -> float:
        """One pass over the images in a new order; returns the mean loss."""
        draw = generator(self.seed, "epoch", epoch)
        torch.manual_seed(derived_seed(self.seed, "dropout", epoch))
        order = torch.randperm(len(self.labels), generator=draw)
        self.network.train()
        total = torch.zeros((), device=self.device)
        # Equal batches, none larger than asked: a last batch of one image upsets batch norm.
        for step, chosen in enumerate(order.tensor_split(self.steps)):
            done = (epoch - 1) * self.steps + step
            self._set_rate(done)
            where = chosen.to(self.device)
            images = augment(supervised.unit(self.pixels[where]), self.settings.augmentation, draw)
            with torch.autocast(
                self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"
            ):
                logits = self.network(supervised.normalise(images, self.config)).squeeze(1)
            loss = nn.functional.binary_cross_entropy_with_logits(
                logits.float(), self.labels[where]
            )
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            total += loss.detach() * len(chosen)
            advance(1)
        mean = float(total) / len(self.labels)
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


def _decay_groups(network: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels, none for biases and norms."""
    decayed = [weight for weight in network.parameters() if weight.ndim >= 2]
    free = [weight for weight in network.parameters() if weight.ndim < 2]
    return [{"params": decayed, "weight_decay": decay}, {"params": free, "weight_decay": 0.0}]


def _on_cpu(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}


def _report(row: dict[str, float], log: Log) -> None:
    log.metrics({name: row[name] for name in row if name != "epoch"}, step=int(row["epoch"]))
