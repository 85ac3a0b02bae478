"""Typed parameters: the schema of ``params.yaml`` and of every file in ``profiles/``.

One section per stage, named as the stage. Unknown keys, wrong types and impossible values are
refused with one sentence before any work starts.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from dermaflux.errors import quoted
from dermaflux.params.captions import VISION_LANGUAGE, Caption, TokenPrice
from dermaflux.params.choices import (
    GENERATORS,
    RECIPES,
    generator_name,
    generator_schema,
    pretrains,
)
from dermaflux.params.classifiers import (
    ENLARGED,
    LEARNED,
    MIXED,
    REPEATING,
    UNTRAINED,
    Arm,
    Audit,
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
from dermaflux.params.generators import Backbone, Finetune, Synthesize, Tiny
from dermaflux.params.pretrain import Pretrain
from dermaflux.params.runtime import Runtime

__all__ = [
    "ENLARGED",
    "LEARNED",
    "MIXED",
    "REPEATING",
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
    `latent_ddpm` trains a diffusion model from random weights, `released` takes images that others
    made."""
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
        """The section `train` as it holds for an architecture.

        Students have arms of their own, and no layer decay, which is for pretrained weights.
        """
        if architecture not in self.distill.students:
            return self.train
        own = self.distill.model_dump(include={"arms", "epochs", "batch"}, exclude_none=True)
        return self.train.model_copy(update={**own, "layer_decay": None})

    def arms(self) -> list[Arm]:
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

    def _conditions_possible(self) -> None:
        """Raise `ValueError` for a pool that the generator cannot make, or nothing can learn."""
        section, settings = self.synthesize, self.synthesize.settings(self.generator)
        chosen = (section.conditions, section.proportions)
        if not settings.samples and chosen != ("malignancy", "balanced"):
            raise ValueError(
                f"generator {self.generator!r} samples nothing and takes half of its images from "
                f"each class, but synthesize has conditions {quoted(section.conditions)} and "
                f"proportions {quoted(section.proportions)}; set these to malignancy and balanced"
            )
        if section.conditions != "none":
            return
        if not settings.unconditional:
            able = [
                name for name in GENERATORS if generator_schema(name, "Synthesize").unconditional
            ]
            others = f", or choose the generator {' or '.join(able)}" if able else ""
            raise ValueError(
                f"synthesize.conditions is 'none' but the generator {self.generator!r} samples no "
                f"image without a class; set conditions to malignancy or diagnosis{others}"
            )
        added = self.ratio if self.n_synthetic is None else self.n_synthetic
        mixed = [arm for arm in self.arms() if arm in MIXED]
        if mixed and added:
            raise ValueError(
                f"synthesize.conditions 'none' gives synthetic images no class but the arm "
                f"{mixed[0]!r} trains a classifier on them; leave it out, or set conditions to "
                "malignancy or diagnosis"
            )

    def _prompts_exist(self) -> None:
        """Raise `ValueError` for prompts that no caption can give, or that name no diagnosis."""
        if not self.synthesize.settings(self.generator).samples:
            return
        source = self.synthesize.prompt_source
        if source == "held_out" and not self.caption.held_out_fraction:
            raise ValueError(
                "synthesize.prompt_source 'held_out' needs captions that training never sees but "
                "caption.held_out_fraction is 0; raise it or set prompt_source to captions"
            )
        mixed = self.train.labels == "diagnosis" and {*MIXED} & {*self.arms()}
        if source == "label" and mixed and self.synthesize.conditions == "malignancy":
            raise ValueError(
                "train.labels 'diagnosis' mixes in synthetic images with a diagnosis but "
                "synthesize.prompt_source 'label' gives them none; set it to captions, set "
                "synthesize.conditions to diagnosis, or leave mixture out of train.arms"
            )

    def _weights_exist(self) -> None:
        """Raise `ValueError` where the stage `pretrain` lacks its encoder or will not be run."""
        if pretrains(self.train.recipe):
            if self.pretrain.architecture not in self.train.models:
                raise ValueError(
                    f"pretrain.architecture {self.pretrain.architecture!r} has no entry in "
                    f"train.models ({', '.join(sorted(self.train.models))}); name one of them"
                )
            return
        for name in self.architectures():
            if self.train.models[name].pretrained_here:
                others = " or ".join(filter(pretrains, RECIPES))
                raise ValueError(
                    f"train.models.{name}.weights {quoted(self.train.models[name].weights)} is "
                    f"what pre-training writes but train.recipe is {self.train.recipe!r}; set it "
                    f"to {others}, or name other weights"
                )

    def samples(self) -> bool:
        """Whether the generator draws images from a backbone; one that collects images does not."""
        return self.synthesize.settings(self.generator).samples

    def input_paths(self) -> dict[str, str]:
        """Parameter -> path, or name where a path may stand, of what this run reads from outside.

        Published weights of the hub are among the names.
        """
        paths: dict[str, str | None] = {"data": self.data, "audit.features": self.audit.features}
        if self.caption.captioner == "imported":
            paths["caption.imported"] = self.caption.imported
        elif self.caption.captioner in VISION_LANGUAGE and self.caption.route == "in_process":
            paths["caption.model"] = self.caption.model
        if self.samples():
            paths["backbone.repository"] = self.backbone.repository
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

    def _students_learn(self) -> None:
        """Raise `ValueError` for a student without a model, or without a teacher of its own."""
        models, trained = self.train.models, self.train.architectures
        for name in self.distill.students:
            if name not in models:
                raise ValueError(
                    f"the student {name!r} of distill.students has no entry in train.models "
                    f"({', '.join(sorted(models))}); add one or name one of these"
                )
            if name in trained:
                raise ValueError(
                    f"{name!r} is in train.architectures and in distill.students, and both would "
                    "write the same folder; give the student an entry of its own in train.models"
                )
        if self.distill.students and self.distill.teacher not in trained:
            raise ValueError(
                f"distill.teacher {self.distill.teacher!r} is not one of train.architectures "
                f"{quoted(trained)}; name one of them"
            )
        if self.distill.students and not {"mixture", "real"} & {*self.train.arms}:
            raise ValueError(
                f"train.arms {quoted(self.train.arms)} train no teacher for distill.students; add "
                "mixture or real"
            )

    @model_validator(mode="after")
    def _consistent(self) -> Params:
        wanted = 0 if self.real_fraction else self.synthetic_wanted()
        if wanted > self.synthesize.images:
            raise ValueError(
                f"ratio {self.ratio:g} x n_real {self.n_real} needs {wanted} "
                f"synthetic images but synthesize.images is {self.synthesize.images}; lower the "
                "ratio or raise synthesize.images"
            )
        for section in (self.finetune, self.synthesize):
            section.settings(self.generator).check_chosen()
        sampling = self.synthesize.settings(self.generator)
        sampling.check_trained(self.finetune.settings(self.generator), self.synthesize.scale)
        self._students_learn()
        self._weights_exist()
        self._conditions_possible()
        self._prompts_exist()
        if self.train.labels == "diagnosis" and self.real_fraction is None:
            raise ValueError(
                "train.labels 'diagnosis' has classes too rare for a balanced n_real; set "
                "real_fraction, such as 0.1"
            )
        if (
            self.train.labels == "malignancy"
            and self.promote.architecture not in self.architectures()
        ):
            raise ValueError(
                f"promote.architecture {self.promote.architecture!r} is not one of "
                f"train.architectures {quoted(self.architectures())}; name one of them"
            )
        without = [arm for arm in self.arms() if arm not in MIXED]
        if self.n_real == 0 and self.real_fraction is None and without:
            raise ValueError(
                f"n_real 0 leaves the arm {without[0]!r} without images; set train.arms"
                f"{' and distill.arms' if self.distill.students else ''} to [mixture] and "
                "n_synthetic to the number wanted"
            )
        return self
