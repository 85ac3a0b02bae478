"""Typed parameters: the schema of ``params.yaml`` and of every file in ``profiles/``.

One section per stage, named as the stage. Unknown keys, wrong types and impossible values are
refused with one sentence before any work starts.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from dermaflux.params import consistency
from dermaflux.params.arms import ENLARGED, LEARNED, MIXED, REPEATING, UNTRAINED, Arm, curve_arm
from dermaflux.params.audit import Audit
from dermaflux.params.captions import VISION_LANGUAGE, Caption, TokenPrice
from dermaflux.params.choices import generator_name
from dermaflux.params.classifiers import (
    SHORTCUT_LIMIT,
    Distill,
    Evaluate,
    Model,
    Promote,
    Report,
    Train,
    ZeroShot,
)
from dermaflux.params.corpus import Ingest, OwnColumns, OwnDataset, Validate
from dermaflux.params.fields import (
    CountOrZero,
    Licence,
    Modality,
    PathText,
    Scale,
    Section,
    Seed,
)
from dermaflux.params.generators import (
    RELEASED_BACKBONE,
    Backbone,
    Finetune,
    Synthesize,
    Tiny,
)
from dermaflux.params.pretrain import Pretrain
from dermaflux.params.runtime import Runtime

__all__ = [
    "ENLARGED",
    "LEARNED",
    "MIXED",
    "RELEASED_BACKBONE",
    "REPEATING",
    "SHORTCUT_LIMIT",
    "UNTRAINED",
    "VISION_LANGUAGE",
    "Arm",
    "Audit",
    "Backbone",
    "Caption",
    "Distill",
    "Evaluate",
    "Finetune",
    "Ingest",
    "Licence",
    "Modality",
    "Model",
    "OwnColumns",
    "OwnDataset",
    "Params",
    "Pretrain",
    "Promote",
    "Report",
    "Runtime",
    "Scale",
    "Section",
    "Synthesize",
    "Tiny",
    "TokenPrice",
    "Train",
    "Validate",
    "ZeroShot",
]


class Params(Section):
    """Everything that decides a run."""

    data: PathText = "data"
    """Folder with the datasets in their published layouts."""
    seed: Seed = 0
    n_real: Annotated[int, Field(ge=0, le=10_000_000, multiple_of=2)]
    """Real training images, half benign and half malignant."""
    real_fraction: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """A share of the training split in its own proportions instead of n_real (VAP-Diffusion,
    Table 3: 0.01, 0.1, 1); every class keeps at least one image."""
    ratio: Annotated[float, Field(ge=0.0, le=1000.0)]
    """Synthetic images per real image (paper section 3.2: ratio 1:x)."""
    n_synthetic: CountOrZero | None = None
    """Synthetic images instead of ratio x n_real; needed when n_real is 0 (the paper's 0:1)."""
    generator: Annotated[str, Field(max_length=64), AfterValidator(generator_name)] = "flux_lora"
    """A name from `choices.GENERATORS`: `flux_lora` fine-tunes (or imports) an adapter and samples,
    `latent_ddpm` and `vap` train diffusion models from random weights, the latter on descriptions;
    `released` takes images that others made."""
    ingest: Ingest
    caption: Caption
    validate_: Validate = Field(alias="validate")
    backbone: Backbone
    finetune: Finetune
    synthesize: Synthesize
    audit: Audit
    pretrain: Pretrain
    runtime: Runtime = Runtime()
    train: Train
    distill: Distill = Distill()
    zero_shot: ZeroShot
    evaluate: Evaluate
    promote: Promote
    report: Report

    def architectures(self) -> list[str]:
        """All that are trained and evaluated, students last."""
        return [*self.train.architectures, *self.distill.students]

    def training(self, architecture: str) -> Train:
        """The section `train` as it holds for an architecture, its arms with those of the curve.

        Students have arms of their own, no curve, and no layer decay, which is for pretrained
        weights.
        """
        if architecture not in self.distill.students:
            arms = list(dict.fromkeys([*self.train.arms, *self.curve_sizes()]))
            return self.train.model_copy(update={"arms": arms})
        own = self.distill.model_dump(include={"arms", "epochs", "batch"}, exclude_none=True)
        return self.train.model_copy(update={**own, "curve": [], "layer_decay": None})

    def curve_sizes(self) -> dict[str, int]:
        """Arm of the curve -> its real images of each class, halves rounded up."""
        if self.real_fraction is not None or not self.n_real:
            return {}
        return {curve_arm(each): int(each * self.n_real / 2 + 0.5) for each in self.train.curve}

    def arms(self) -> list[str]:
        """Every arm of any architecture, each once."""
        trained = [arm for name in self.architectures() for arm in self.training(name).arms]
        return list(dict.fromkeys(trained))

    def synthetic_wanted(self, n_real: int | None = None) -> int:
        """Synthetic images of the `mixture` arm; of an odd number (4,375) one stays out.

        `n_real` is the number of real images drawn where `real_fraction` decides it.
        """
        if self.n_synthetic is not None:
            return self.n_synthetic
        return int(self.ratio * (self.n_real if n_real is None else n_real) + 0.5)

    def samples(self) -> bool:
        """Whether the generator draws images from a backbone; one that collects images does not."""
        return self.synthesize.settings(self.generator).samples

    def input_paths(self) -> dict[str, str]:
        """Parameter -> path, or name where a path may stand, of what this run reads from outside.

        Published weights of the hub are among the names.
        """
        paths: dict[str, str | None] = {"data": self.data, "audit.features": self.audit.features}
        paths["audit.weights"] = self.audit.weights
        if self.caption.captioner == "imported":
            paths["caption.imported"] = self.caption.imported
        elif self.caption.captioner == "visual_attributes":
            paths["caption.questions"] = self.caption.questions
        if self.caption.captioner in VISION_LANGUAGE and self.caption.route == "in_process":
            paths["caption.model"] = self.caption.model
        if self.samples():
            paths["backbone.repository"] = self.backbone.repository
        if self.samples() and self.synthesize.prompt_source == "file":
            paths["synthesize.prompt_file"] = self.synthesize.prompt_file
        for name, section in (("finetune", self.finetune), ("synthesize", self.synthesize)):
            for key, value in section.settings(self.generator).input_paths().items():
                paths[f"{name}.{self.generator}.{key}"] = value
        for name in self.architectures():
            if not self.train.models[name].pretrained_here:
                paths[f"train.models.{name}.weights"] = self.train.models[name].weights
            paths[f"train.models.{name}.name"] = self.train.models[name].local_folder()
        for name in self.zero_shot.run:
            paths[f"zero_shot.models.{name}"] = self.zero_shot.models[name]
        return {name: path for name, path in paths.items() if path is not None}

    @model_validator(mode="after")
    def _consistent(self) -> Params:
        consistency.check(self)
        return self
