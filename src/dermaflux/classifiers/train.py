"""Stage `train`: one cell of the matrix, that is every arm of one architecture and seed.

Reads what `cell_images` reads, and pretrained weights; writes
`models/classifiers/<architecture>-<seed>/<arm>/`. Command: `dermaflux train --architecture vit
--seed 0`.

The arms `real` and `random_features` do not depend on `ratio`: their results stay in their
checkpoints, so a second ratio trains the others only and logs no second run of these two.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermaflux import paths
from dermaflux.classifiers import arm_plan, loop
from dermaflux.classifiers.arm_plan import Recipe
from dermaflux.classifiers.data import training_set
from dermaflux.classifiers.data.training_set import CellImages
from dermaflux.classifiers.logging import mlflow_runs, plots
from dermaflux.classifiers.model import network, pretrained
from dermaflux.classifiers.recipes.supervised import augmentation
from dermaflux.core.checkpoints import checkpoint, fingerprint
from dermaflux.core.files import atomic_folder, write_json
from dermaflux.errors import InputError
from dermaflux.metrics import binary, calibration, multiclass
from dermaflux.params import Arm, Model, Params
from dermaflux.tracking import runs as tracking
from dermaflux.training import torch_compile

_ELSEWHERE = {
    *("architectures", "seeds", "arms", "models", "labels", "minimum_diagnosis_images"),
    *("image_size", "augmentation"),
}
"""Parameters of `train` that act through the images, the config or the recipe of an arm alone."""


def run(params: Params, architecture: str, seed: int) -> None:
    """Train every arm of a cell; the cell's folder appears whole."""
    cell = _Cell.open(params, architecture, seed)
    folder = paths.CLASSIFIERS / paths.cell(architecture, seed)
    # At ratio 0 the enlarged arms are the real one, whose result stays.
    lasting = {cell.key("real"), cell.key("random_features")}
    runs, used_up = [], []
    with atomic_folder(folder) as partial:
        for arm in params.train.arms:
            key = cell.key(arm)
            logged = cell.train(arm, key, partial / arm)
            runs += [logged] if logged else []
            used_up += [] if key in lasting else [key]
    for logged in runs:
        logged.outputs(folder)
    for key in used_up:
        with checkpoint("train", key) as saved:
            saved.discard()


@dataclass(frozen=True)
class _Cell:
    """Images and settings of one cell."""

    params: Params
    architecture: str
    seed: int
    model: Model
    weights: Path | None
    config: dict[str, Any]
    images: CellImages

    @classmethod
    def open(cls, params: Params, architecture: str, seed: int) -> _Cell:
        """Find the model, then the images."""
        model = params.train.models.get(architecture)
        if model is None:
            raise InputError(
                f"architecture {architecture!r} is not one of train.models "
                f"({', '.join(sorted(params.train.models))}); name one of them"
            )
        side = params.train.image_size
        network.configure(model, side)
        weights = pretrained.locate(model)
        images = training_set.load(params, seed)
        config = network.configure(model, side, images.classes)
        return cls(params, architecture, seed, model, weights, config, images)

    def recipe(self, arm: Arm) -> Recipe:
        """How an arm trains."""
        labels = self.images.of(arm).labels
        return arm_plan.recipe(arm, labels, self.images.added, self.params.train.augmentation)

    def balanced(self) -> bool:
        """Whether training showed every class equally often."""
        return self.params.real_fraction is None or self.params.train.sampling == "balanced"

    def start(self, arm: Arm) -> Path | None:
        """The weights an arm starts from; random features have learned nothing."""
        return None if arm == "random_features" else self.weights

    def key(self, arm: Arm) -> str:
        """Fingerprint of what decides the arm's weights, and of nothing else."""
        # What is not left out here is taken in: a parameter of tomorrow must not be forgotten.
        settings = self.params.train.model_dump(exclude=_ELSEWHERE)
        recipe = self.recipe(arm)
        return fingerprint(
            images=self.images.digests(arm),
            shown=hashlib.sha256(recipe.shown.tobytes()).hexdigest(),
            augmentation=recipe.augmentation,
            last_layer_only=recipe.last_layer_only,
            config=self.config,
            learning_rate=self.model.learning_rate,
            weights=pretrained.digest(self.start(arm)),
            settings=settings,
            seed=self.seed,
            code=_code(),
        )

    def train(self, arm: Arm, key: str, folder: Path) -> tracking.Run | None:
        """Train an arm, or recall its result, into `folder`; return the run of a new one."""
        name = f"{paths.cell(self.architecture, self.seed)}/{arm}"
        with checkpoint("train", key) as saved:
            fitted = loop.recall(saved)
            if fitted is not None:
                print(f"{name}: trained before on these images; result taken from its checkpoint")
                self.write(arm, fitted, folder)
                return None
            recipe = self.recipe(arm)
            with self.logged(arm) as logged:
                fitted = loop.fit(
                    self.config,
                    self.model,
                    self.params.train,
                    self.images.of(arm),
                    self.images.validation,
                    self.seed,
                    saved,
                    logged,
                    recipe,
                    self.start(arm),
                )
                self.write(arm, fitted, folder)
                logged.metrics({"best_epoch": fitted.epoch, "best_auc": fitted.validation_auc})
                logged.figure(
                    plots.learning_curve(fitted.history, fitted.epoch, name),
                    "learning_curve.png",
                )
                final = paths.CLASSIFIERS / name
                logged.tag(f"output.{final.as_posix()}", tracking.dvc_hash(folder))
        print(
            f"{name}: validation AUC {fitted.validation_auc:.3f} in epoch {fitted.epoch} of "
            f"{self.params.train.epochs}, {len(recipe.shown)} images an epoch"
        )
        return logged

    def logged(self, arm: Arm) -> AbstractContextManager[tracking.Run]:
        """The MLflow run of a training."""
        inputs = [paths.CORPUS]
        used = [("corpus train", paths.CORPUS, self.images.real, "training")]
        used += [("corpus validation", paths.CORPUS, self.images.validation, "validation")]
        if self.images.has_synthetic(arm):
            inputs += [paths.SYNTHETIC, paths.AUDIT_REPORT]
            used += [("synthetic", paths.SYNTHETIC, self.images.synthetic, "training")]
        count = len(self.images.real.image_ids)
        parameters = mlflow_runs.arm_parameters(
            self.params, self.architecture, self.seed, arm, count
        )
        return tracking.start(
            mlflow_runs.TRAINING,
            mlflow_runs.name(parameters),
            parameters,
            inputs,
            parent=mlflow_runs.parent(self.params, parameters, "train"),
            datasets=[
                mlflow_runs.dataset(title, folder, images.labels, context, self.images.classes)
                for title, folder, images, context in used
            ],
            stage="train",
        )

    def write(self, arm: Arm, fitted: loop.Fitted, folder: Path) -> None:
        """The classifier folder that `supervised` describes."""
        import pandas as pd

        folder.mkdir()
        network.save_weights(fitted.weights, folder / "model.safetensors")
        synthetic = len(self.images.synthetic.image_ids) if self.images.has_synthetic(arm) else 0
        validation, classes = self.images.validation, self.images.classes
        training = {
            "n_real": len(self.images.real.image_ids),
            "n_synthetic": synthetic,
            "n_shown": len(self.recipe(arm).shown),
            "epoch": fitted.epoch,
            "temperature": calibration.fit_temperature(
                validation.labels, fitted.validation, self.balanced()
            ),
            "pretrained": self.start(arm) is not None,
        }
        write_json(folder / "config.json", {**self.config, **training})
        pd.DataFrame(fitted.history).to_csv(folder / "history.csv", index=False)
        columns = ["probability"] if network.binary(classes) else list(classes)
        scores = fitted.validation.reshape(len(validation.labels), len(columns))
        names = {
            "image_id": validation.image_ids,
            "label": [classes[number] for number in validation.labels],
        }
        pd.DataFrame(names | dict(zip(columns, scores.T, strict=True))).to_csv(
            folder / "validation.csv", index=False
        )


def _code() -> str:
    """Hash of what computes the weights: a finished result must not outlive a change of it."""
    import timm
    import torch

    state = hashlib.sha256(f"torch {torch.__version__} timm {timm.__version__}".encode())
    for module in (arm_plan, augmentation, torch_compile, loop, binary, multiclass, network):
        state.update(Path(str(module.__file__)).read_bytes())
    return state.hexdigest()
