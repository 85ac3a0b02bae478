"""Stage `train`: one cell of the matrix, that is every arm of one architecture and seed.

Reads what `training_set` reads, and pretrained weights; writes
`models/classifiers/<architecture>-<seed>/<arm>/`. Command: `dermaflux train --architecture vit
--seed 0`.

Of `train.models` only the cell's architecture is read, and `train.architectures` and `train.seeds`
not at all: one more of either changes nothing here. The arms `real`, `random_features`, `scratch`
and those of `train.curve` do not depend on `ratio`: their results stay in their checkpoints, so a
second ratio trains only the others. `shortages.json` names arms that the split is too small for.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from dermaflux import paths
from dermaflux.classifiers.data import arm_plan, real_draws, training_set
from dermaflux.classifiers.data.arm_plan import ArmPlan
from dermaflux.classifiers.data.samples import Samples
from dermaflux.classifiers.data.training_set import CellImages, Gate
from dermaflux.classifiers.logging import mlflow_runs, plots
from dermaflux.classifiers.model import network, pretrained
from dermaflux.classifiers.recipes import registry
from dermaflux.classifiers.recipes.protocol import Recipe
from dermaflux.classifiers.train import loop
from dermaflux.core.arrays import Array
from dermaflux.core.checkpoints import Checkpoint, checkpoint, fingerprint
from dermaflux.core.code_digest import stage_digest
from dermaflux.core.files import atomic_folder, read_json, write_json
from dermaflux.errors import InputError, quoted
from dermaflux.metrics import calibration
from dermaflux.params import UNTRAINED, Arm, Model, Params, Train
from dermaflux.tracking import runs as tracking
from dermaflux.tracking import store

_ELSEWHERE = {
    *("architectures", "seeds", "arms", "models", "labels", "minimum_diagnosis_images"),
    *("image_size", "augmentation", "curve", "draw", "match_by"),
}
"""Parameters of `train` that act only through the images, the config or the plan of an arm."""


def run(params: Params, architecture: str, seed: int, gate: Gate) -> None:
    """Train every arm of a cell whose images pass the gate; the cell's folder appears whole."""
    if architecture in params.distill.students:
        raise InputError(
            f"{quoted(architecture)} is one of distill.students and learns from a teacher; run "
            f"`dermaflux distill --architecture {architecture} --seed {seed}`"
        )
    Cell.open(params, architecture, seed, gate).run()


@dataclass(frozen=True)
class Cell:
    """Images and settings of one cell; a stage of its own differs by what it overrides."""

    stage: ClassVar[str] = "train"
    lasting: ClassVar[tuple[Arm, ...]] = ("real", *UNTRAINED)
    """Arms whose results stay in their checkpoints, for they do not depend on `ratio`."""

    params: Params
    architecture: str
    seed: int
    settings: Train
    """As it holds for the architecture."""
    model: Model
    weights: Path | None
    config: dict[str, Any]
    images: CellImages

    @classmethod
    def open(cls, params: Params, architecture: str, seed: int, gate: Gate) -> Self:
        """Find the model, then the images."""
        model = params.train.models.get(architecture)
        if model is None:
            raise InputError(
                f"architecture {architecture!r} is not one of train.models "
                f"({', '.join(sorted(params.train.models))}); name one of them"
            )
        side = params.train.image_size
        network.check(network.configure(model, side))
        weights = pretrained.locate(model)
        # A server that cannot be used is told before images are decoded.
        store.require_writable(mlflow_runs.TRAINING)
        settings = params.training(architecture)
        images = training_set.load(params, seed, gate, settings.arms)
        config = network.configure(model, side, images.classes)
        return cls(params, architecture, seed, settings, model, weights, config, images)

    def run(self) -> None:
        """Train every arm; the cell's folder appears whole."""
        folder = paths.CLASSIFIERS / paths.cell(self.architecture, self.seed)
        # An arm of the curve that the training split is too small for is left out.
        sizes = self.params.curve_sizes().keys()
        short = self.images.shortages
        arms = [arm for arm in self.settings.arms if arm not in sizes or arm not in short]
        # At ratio 0 the enlarged arms are the real one, whose result stays.
        lasting = {self.key(arm) for arm in (*self.lasting, *(sizes & set(arms)))}
        runs, finished = [], []
        with atomic_folder(folder) as partial:
            real_draws.write(short, partial)
            for arm in arms:
                key = self.key(arm)
                logged = self.train(arm, key, partial / arm)
                runs += [logged] if logged else []
                finished += [] if key in lasting else [key]
        for logged in runs:
            logged.outputs(folder)
        for key in finished:
            with checkpoint(self.stage, key, lasting=True) as saved:
                saved.discard()

    def code(self) -> str:
        """Digest of the code that decides the weights."""
        return stage_digest("train", recipe=self.settings.recipe)

    def recipe(self, arm: Arm) -> Recipe:
        """What an arm learns."""
        return registry.create(self.settings.recipe, self.config, self.plan(arm))

    def taught(self, arm: Arm) -> dict[str, Any]:
        """What else decides an arm's weights, for its key and its config.json."""
        return {}

    def teachers(self, arm: Arm) -> list[Path]:
        """Classifiers that an arm learns from."""
        return []

    def plan(self, arm: Arm) -> ArmPlan:
        """How an arm trains."""
        labels = self.images.of(arm).labels
        return arm_plan.plan(arm, labels, self.images.added, self.settings.augmentation)

    def balanced(self) -> bool:
        """Whether training showed every class equally often."""
        return self.params.real_fraction is None or self.settings.sampling == "balanced"

    def start(self, arm: Arm) -> Path | None:
        """The weights an arm starts from."""
        return None if arm in UNTRAINED else self.weights

    def beginning(self, arm: Arm) -> dict[str, Any]:
        """Where an arm's weights begin, for its config.json; nothing where they are random."""
        start = self.start(arm)
        if start is None:
            return {}
        known = {"start_weights": pretrained.digest(start)}
        path = paths.PRETRAINED / "pretrain.json"
        if not self.model.pretrained_here or not path.is_file():
            return known
        return {**known, "pretraining": read_json(path, "`dermaflux pretrain`").get("images", {})}

    def settings_of(self, arm: Arm) -> Train:
        """The settings as they hold for an arm: layer decay only where there are layers to spare.

        Random first layers would hardly learn at 0.75^12 of the rate, and what pretrained weights
        gain (real - scratch) would look larger than it is.
        """
        if self.start(arm) is not None:
            return self.settings
        return self.settings.model_copy(update={"layer_decay": None})

    def key(self, arm: Arm) -> str:
        """Fingerprint of what decides the arm's weights, and of nothing else."""
        # Everything not excluded is in the key: a parameter added later must not be forgotten.
        settings = self.settings_of(arm).model_dump(exclude=_ELSEWHERE)
        plan = self.plan(arm)
        return fingerprint(
            images=self.images.digests(arm),
            shown=hashlib.sha256(plan.shown.tobytes()).hexdigest(),
            augmentation=plan.augmentation,
            last_layer_only=plan.last_layer_only,
            config=self.config,
            learning_rate=self.model.learning_rate,
            weights=pretrained.digest(self.start(arm)),
            settings=settings,
            seed=self.seed,
            code=self.code(),
            libraries=network.libraries("torch", "timm"),
            **self.taught(arm),
        )

    def train(self, arm: Arm, key: str, folder: Path) -> tracking.Run | None:
        """Train an arm, or recall its result, into `folder`; return the run of a new one."""
        name = f"{paths.cell(self.architecture, self.seed)}/{arm}"
        with checkpoint(self.stage, key, lasting=True) as saved:
            result = loop.recall(saved)
            if result is not None:
                print(f"{name}: trained before on these images; result taken from its checkpoint")
                self.write(arm, result, folder)
                return None
            with self.logged(arm) as logged:
                result = self.fit(arm, saved, logged)
                self.write(arm, result, folder)
                logged.metrics({"best_epoch": result.epoch})
                if result.validation is not None:
                    logged.metrics({"best_auc": result.validation_auc})
                logged.figure(
                    plots.learning_curve(result.history, result.epoch, name),
                    "learning_curve.png",
                )
                final = paths.CLASSIFIERS / name
                for tag, value in tracking.flat(self.taught(arm)).items():
                    logged.tag(tag, value)
                logged.tag(f"output.{final.as_posix()}", tracking.dvc_hash(folder))
        print(
            f"{name}: validation AUC {result.validation_auc:.3f} in epoch {result.epoch} of "
            f"{self.settings.epochs}, {len(self.plan(arm).shown)} images an epoch"
        )
        return logged

    def fit(self, arm: Arm, saved: Checkpoint, log: tracking.Log) -> loop.TrainingResult:
        """Train an arm on from its checkpoint."""
        return loop.fit(
            self.recipe(arm),
            self.model,
            self.settings_of(arm),
            self.images.of(arm),
            self.images.validation,
            self.seed,
            saved,
            log,
            shown=self.plan(arm).shown,
            start=self.start(arm),
        )

    def logged(self, arm: Arm) -> AbstractContextManager[tracking.Run]:
        """The MLflow run of a training."""
        inputs = [paths.CORPUS, *self.teachers(arm)]
        if self.start(arm) is not None and self.model.pretrained_here:
            inputs.append(paths.PRETRAINED)
        real, synthetic = self.images.real(arm), self.images.synthetic(arm)
        used = [("corpus train", paths.CORPUS, real, "training")]
        used += [("corpus validation", paths.CORPUS, self.images.validation, "validation")]
        if self.images.has_synthetic(arm):
            inputs += [paths.SYNTHETIC, paths.REJECTED]
            used += [("synthetic", paths.SYNTHETIC, synthetic, "training")]
        count = len(real.image_ids)
        parameters = mlflow_runs.arm_parameters(
            self.params, self.architecture, self.seed, arm, count
        )
        return tracking.start(
            mlflow_runs.TRAINING,
            mlflow_runs.name(parameters),
            parameters,
            inputs,
            parent=mlflow_runs.parent(self.params, parameters, self.stage),
            datasets=[
                mlflow_runs.dataset(title, folder, images.labels, context, self.images.classes)
                for title, folder, images, context in used
            ],
            stage=self.stage,
        )

    def write(self, arm: Arm, result: loop.TrainingResult, folder: Path) -> None:
        """The classifier folder that `network` describes."""
        import pandas as pd

        folder.mkdir()
        network.save_weights(result.weights, folder / "model.safetensors")
        training = {
            "n_real": len(self.images.real(arm).image_ids),
            "n_synthetic": len(self.images.synthetic(arm).image_ids),
            "n_shown": len(self.plan(arm).shown),
            "epoch": result.epoch,
            "pretrained": self.start(arm) is not None,
            **self.beginning(arm),
            **self.taught(arm),
        }
        if arm in self.images.shortages:
            training["shortage"] = self.images.shortages[arm]
        if result.validation is not None:
            labels = self.images.validation.labels
            training["temperature"] = calibration.fit_temperature(
                labels, result.validation, self.balanced()
            )
            _write_scores(self.images.validation, self.images.classes, result.validation, folder)
        write_json(folder / "config.json", {**self.config, **training})
        pd.DataFrame(result.history).to_csv(folder / "history.csv", index=False)


def _write_scores(
    validation: Samples, classes: tuple[str, ...], scores: Array, folder: Path
) -> None:
    """validation.csv of the scores (N,) or (N, K)."""
    import pandas as pd

    columns = ["probability"] if network.binary(classes) else list(classes)
    names = {
        "image_id": validation.image_ids,
        "label": [classes[number] for number in validation.labels],
    }
    by_column = scores.reshape(len(validation.labels), len(columns)).T
    pd.DataFrame(names | dict(zip(columns, by_column, strict=True))).to_csv(
        folder / "validation.csv", index=False
    )
