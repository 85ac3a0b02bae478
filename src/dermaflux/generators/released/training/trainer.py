"""The stage `finetune` where others have made the images: nothing is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dermaflux.generators.protocol import Facts, Need, Trainer, Training, TrainingRun
from dermaflux.params.fields import GeneratorSettings

if TYPE_CHECKING:
    from dermaflux.generators.data.images import TrainingImages


class NoTrainer:
    """The entry `training.trainer` of released images."""

    needs: frozenset[Need] = frozenset()

    def trains(self, settings: GeneratorSettings) -> bool:
        """Never."""
        return False

    def install(self, run: TrainingRun, folder: Path) -> Facts:
        """There are no weights; the report says why."""
        return {"summary": "None: the synthetic images are released ones."}

    def prepare(self, run: TrainingRun, images: TrainingImages) -> Training:
        """Not called, since `trains` is false."""
        raise AssertionError("released images are not trained")


TRAINER: Trainer = NoTrainer()
