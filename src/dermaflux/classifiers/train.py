"""Stage `train`: one cell of the matrix, that is every arm of one architecture and seed.

Reads `corpus/` (splits train and validation; of the test split only names, to prove that training
shares nothing with it, never a picture or label), `synthetic/` and `reports/audit.json`; writes
`models/classifiers/<architecture>-<seed>/<arm>/`. Command: `dermaflux train --architecture vit
--seed 0`.

The arm `real` does not depend on `ratio`: its result stays in its checkpoint, so a second ratio
trains the mixture only and logs no second run of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux import paths, table, tracking
from dermaflux.checkpoints import checkpoint, fingerprint
from dermaflux.classifiers import (
    arm_runs,
    augmentation,
    evaluation_figures,
    fit,
    mixture,
    samples,
    supervised,
)
from dermaflux.classifiers.samples import Samples
from dermaflux.corpus.training_expectations import HELD_OUT, MIXTURE
from dermaflux.errors import InputError
from dermaflux.params import Model, Params

if TYPE_CHECKING:
    import pandas as pd


def run(params: Params, architecture: str, seed: int) -> None:
    """Train every arm of a cell; the cell's folder appears whole."""
    cell = _Cell.open(params, architecture, seed)
    folder = paths.CLASSIFIERS / paths.cell(architecture, seed)
    runs, used_up = [], []
    with table.atomic_folder(folder) as partial:
        for arm in params.train.arms:
            key = cell.key(arm)
            logged = cell.train(arm, key, partial / arm)
            runs += [logged] if logged else []
            used_up += [key] if cell.has_synthetic(arm) else []
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
    config: dict[str, Any]
    real: Samples
    synthetic: Samples
    validation: Samples

    @classmethod
    def open(cls, params: Params, architecture: str, seed: int) -> _Cell:
        """Draw the images, then decode them; every `InputError` about counts comes first."""
        model = params.train.models.get(architecture)
        if model is None:
            raise InputError(
                f"architecture {architecture!r} is not one of train.models "
                f"({', '.join(sorted(params.train.models))}); name one of them"
            )
        side = params.train.image_size
        config = supervised.configure(model, side)
        real_rows = table.metadata(paths.CORPUS, MIXTURE, "train")
        real = mixture.draw_real(real_rows, params.n_real, seed)
        wanted = params.synthetic_wanted() if "mixture" in params.train.arms else 0
        rejected = _rejected() if wanted else ()
        pool = table.metadata(paths.SYNTHETIC, MIXTURE, "train") if wanted else real_rows[:0]
        drawn = mixture.draw_synthetic(pool, rejected, wanted, seed)
        _cross_border(params, _of(real_rows, real), _of(pool, drawn), rejected)
        synthetic = Samples.empty(side)
        if wanted:
            synthetic = samples.load(paths.SYNTHETIC, pool, drawn, "train", side)
        validation = samples.load_split(paths.CORPUS, "validation", side)[1]
        images = samples.load(paths.CORPUS, real_rows, real, "train", side)
        return cls(params, architecture, seed, model, config, images, synthetic, validation)

    def has_synthetic(self, arm: str) -> bool:
        """Whether synthetic images take part in an arm; at ratio 0 the mixture is the real arm."""
        return arm == "mixture" and len(self.synthetic.image_ids) > 0

    def images(self, arm: str) -> Samples:
        """Training images of an arm."""
        return self.real + self.synthetic if self.has_synthetic(arm) else self.real

    def key(self, arm: str) -> str:
        """Fingerprint of what decides the arm's weights, and of nothing else."""
        settings = self.params.train.model_dump(
            exclude={"architectures", "seeds", "arms", "models", "image_size"}
        )
        return fingerprint(
            images=self.images(arm).digest(),
            validation=self.validation.digest(),
            config=self.config,
            model=self.model.model_dump(),
            settings=settings,
            seed=self.seed,
            code=_code(),
        )

    def train(self, arm: str, key: str, folder: Path) -> tracking.Run | None:
        """Train an arm, or recall its result, into `folder`; return the run of a new one."""
        name = f"{paths.cell(self.architecture, self.seed)}/{arm}"
        with checkpoint("train", key) as saved:
            fitted = fit.recall(saved)
            if fitted is not None:
                print(f"{name}: trained before on these images; result taken from its checkpoint")
                self.write(arm, fitted, folder)
                return None
            with self.logged(arm) as logged:
                fitted = fit.fit(
                    self.config,
                    self.model,
                    self.params.train,
                    self.images(arm),
                    self.validation,
                    self.seed,
                    saved,
                    logged,
                )
                self.write(arm, fitted, folder)
                logged.metrics({"best_epoch": fitted.epoch, "best_auc": fitted.validation_auc})
                logged.figure(
                    evaluation_figures.learning_curve(fitted.history, fitted.epoch, name),
                    "learning_curve.png",
                )
                final = paths.CLASSIFIERS / name
                logged.tag(f"output.{final.as_posix()}", tracking.dvc_hash(folder))
        print(
            f"{name}: validation AUC {fitted.validation_auc:.3f} in epoch {fitted.epoch} of "
            f"{self.params.train.epochs}, {len(self.images(arm).image_ids)} images"
        )
        return logged

    def logged(self, arm: str) -> AbstractContextManager[tracking.Run]:
        """The MLflow run of a training."""
        inputs = [paths.CORPUS]
        datasets = [
            arm_runs.dataset("corpus train", paths.CORPUS, self.real.labels, "training"),
            arm_runs.dataset(
                "corpus validation", paths.CORPUS, self.validation.labels, "validation"
            ),
        ]
        if self.has_synthetic(arm):
            inputs += [paths.SYNTHETIC, paths.AUDIT_REPORT]
            made = self.synthetic.labels
            datasets.append(arm_runs.dataset("synthetic", paths.SYNTHETIC, made, "training"))
        count = len(self.real.image_ids)
        parameters = arm_runs.arm_parameters(self.params, self.architecture, self.seed, arm, count)
        return tracking.start(
            arm_runs.TRAINING,
            arm_runs.name(parameters),
            parameters,
            inputs,
            parent=arm_runs.parent(self.params, parameters, "train"),
            datasets=datasets,
            stage="train",
        )

    def write(self, arm: str, fitted: fit.Fitted, folder: Path) -> None:
        """The classifier folder that `supervised` describes."""
        import pandas as pd

        folder.mkdir()
        supervised.save_weights(fitted.weights, folder / "model.safetensors")
        counts = {
            "n_real": len(self.real.image_ids),
            "n_synthetic": len(self.synthetic.image_ids) if self.has_synthetic(arm) else 0,
        }
        training = {"epoch": fitted.epoch, "pretrained": self.model.pretrained}
        table.write_json(folder / "config.json", {**self.config, **counts, **training})
        pd.DataFrame(fitted.history).to_csv(folder / "history.csv", index=False)
        pd.DataFrame(
            {
                "image_id": self.validation.image_ids,
                "label": [mixture.CLASSES[label] for label in self.validation.labels],
                "probability": fitted.validation,
            }
        ).to_csv(folder / "validation.csv", index=False)


def _of(rows: pd.DataFrame, image_ids: Sequence[str]) -> pd.DataFrame:
    return rows[rows["image_id"].isin(list(image_ids))]


def _cross_border(
    params: Params, real: pd.DataFrame, synthetic: pd.DataFrame, rejected: Sequence[str]
) -> None:
    """Hold the drawn images to the promises of the suite `mixture`, before any is decoded."""
    import pandas as pd

    from dermaflux.corpus import expectations, training_expectations, validate

    held_out = [table.metadata(paths.CORPUS, HELD_OUT, split) for split in ("validation", "test")]
    frame = training_expectations.with_derived_mixture(
        real, synthetic, pd.concat(held_out), rejected
    )
    arm = "mixture" if len(synthetic) else "real"
    promises = training_expectations.mixture_promises(
        params, arm, expectations.as_published(params)
    )
    validate.check("mixture", frame, promises)


def _rejected() -> Sequence[str]:
    """image_ids that the audit found to be memorised."""
    try:
        report = json.loads(paths.AUDIT_REPORT.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no {paths.AUDIT_REPORT}; run `dermaflux audit`") from None
    rejected: list[str] = report["rejected"]
    return rejected


def _code() -> str:
    """Hash of what computes the weights: a finished result must not outlive a change of it."""
    import timm
    import torch

    state = hashlib.sha256(f"torch {torch.__version__} timm {timm.__version__}".encode())
    for module in (fit, augmentation, supervised):
        state.update(Path(str(module.__file__)).read_bytes())
    return state.hexdigest()
