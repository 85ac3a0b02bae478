"""Parameters of the stages from `train` to `report`: what classifiers learn from, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, field_validator, model_validator

from dermaflux.core import hub
from dermaflux.errors import quoted
from dermaflux.params.arms import Arm
from dermaflux.params.choices import RECIPES
from dermaflux.params.fields import (
    Batch,
    Class,
    Count,
    Draw,
    EachOnce,
    Fraction,
    LearningRate,
    MatchBy,
    Name,
    OpenFraction,
    Options,
    PathText,
    Section,
    Seed,
    Text,
)
from dermaflux.paths import PRETRAINED_WEIGHTS


def _few_digits(multiple: float) -> float:
    if float(f"{multiple:g}") != multiple:
        raise ValueError(f"{multiple!r} has more than six digits; round it to {multiple:g}")
    return multiple


Multiple = Annotated[float, Field(gt=0.0, le=1000.0), AfterValidator(_few_digits)]
SHORTCUT_LIMIT = 0.65
"""AUC above which the stages warn of what is known without a look at the lesion. An AUC of 400
images, half of each class, is within 0.06 of 0.5 by chance (two standard errors)."""
StudentArm = Literal["real", "mixture", "no_teacher"]


class Model(Section):
    """A timm model and how it is trained."""

    name: Text
    """A name that timm resolves; see `classifiers.model.timm_names`."""
    pretrained: bool = False
    """Start from the published weights of the hub, or from `weights`."""
    weights: PathText | None = None
    """A file of pretrained weights in safetensors with timm's names, instead of the hub's."""
    learning_rate: LearningRate
    options: Options = {}
    """Keyword arguments of `timm.create_model`."""

    @property
    def pretrained_here(self) -> bool:
        """Whether it starts from what the stage `pretrain` writes."""
        if not self.pretrained or self.weights is None:
            return False
        return Path(self.weights) == PRETRAINED_WEIGHTS

    def local_folder(self) -> str | None:
        """The folder that a name such as `local-dir:FOLDER` gives; None for other names."""
        kind, _, folder = self.name.strip().partition(":")
        return folder if kind.lower() == "local-dir" else None


class Train(Section):
    """Classifiers on controlled mixtures (paper section 3)."""

    architectures: Annotated[list[Name], Field(min_length=1, max_length=100), EachOnce]
    """Names of `models` to train; the DVC matrix runs over these and `seeds`."""
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000), EachOnce]
    arms: Annotated[list[Arm], Field(min_length=1, max_length=9), EachOnce] = ["real", "mixture"]
    """Names of `arms.ARMS`."""
    curve: Annotated[list[Multiple], Field(max_length=6), EachOnce] = []
    """Multiples of n_real at which real images alone are trained on too, for a learning curve: each
    is an arm such as `real_x0.5`, and 1 is the arm `real`. Under `real_fraction`, and with n_real
    0, there is nothing to multiply and none is trained."""
    recipe: Annotated[str, Field(max_length=64)] = "supervised"
    """What a network learns from its images: a name of `choices.RECIPES`."""
    labels: Literal["malignancy", "diagnosis"] = "malignancy"
    """`diagnosis` trains on the table's diagnoses instead of benign against malignant (the
    multi-class setting of VAP-Diffusion, Table 3); it needs `real_fraction`."""
    minimum_diagnosis_images: Count = 10
    """A diagnosis with fewer images in the training split is not a class."""
    models: Annotated[dict[Name, Model], Field(max_length=100)]
    image_size: Annotated[int, Field(ge=16, le=2048)] = 224
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 40
    batch: Batch = 32
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """The paper names none; AdamW is what its architectures are fine-tuned with elsewhere."""
    weight_decay: Annotated[float, Field(ge=0.0, le=10.0)] = 0.05
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Factor on the learning rate from each layer to the one before it, as MAE is fine-tuned (0.75;
    positions and class token then take no weight decay); null: one rate for all. Of arms that start
    from pretrained weights; random layers learn at the full rate."""
    warmup_epochs: Annotated[int, Field(ge=0, le=100_000)] = 0
    draw: Draw = "pooled"
    """How n_real images are drawn. `pooled`, as published: of each class from the whole training
    split, so that where an image comes from may tell its class. `matched`: in pairs of a benign and
    a malignant image that agree in `match_by`; epochs are then compared, and classifiers promoted,
    on such pairs of the validation split."""
    match_by: MatchBy = ["source", "scale"]
    sampling: Literal["shuffled", "balanced"] = "shuffled"
    """`shuffled` shows each image once an epoch (the draw of n_real is balanced already);
    `balanced` shows each class equally often, images of rare classes more than once."""
    augmentation: Literal["none", "flips", "flips-colour", "strong"] = "flips-colour"
    """Of every arm but `augmented`, which always takes `strong`."""
    precision: Literal["fp32", "bf16"] = "fp32"
    selection_images: Count | None = None
    """Compare epochs on about this many validation images instead of all, each class in its share;
    the best epoch is scored on all. The paper's corpus has tens of thousands of them, which
    after every epoch would take longer than the training."""
    compile: bool = False
    """Compile the network; pays on a GPU from some minutes of training on."""

    @field_validator("recipe")
    @classmethod
    def _known_recipe(cls, name: str) -> str:
        if name not in RECIPES:
            hint = "; a student is named in distill.students" if name == "distill" else ""
            raise ValueError(
                f"there is no recipe {quoted(name)}; name one of {', '.join(RECIPES)}{hint}"
            )
        return name

    @field_validator("arms")
    @classmethod
    def _no_student(cls, arms: list[Arm]) -> list[Arm]:
        if "no_teacher" in arms:
            raise ValueError("the arm 'no_teacher' is of students alone; name it in distill.arms")
        return arms

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Train:
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs} is above epochs {self.epochs}, so training "
                "would end before its full learning rate; lower it or raise epochs"
            )
        return self

    @model_validator(mode="after")
    def _models_exist(self) -> Train:
        for name in self.architectures:
            if name not in self.models:
                known = ", ".join(sorted(self.models))
                raise ValueError(f"architecture {name!r} has no entry in train.models ({known})")
        for model in self.models.values():
            if model.weights is not None and not model.pretrained:
                raise ValueError(
                    f"weights {quoted(model.weights)} of {quoted(model.name)} would not be used; "
                    "set pretrained to true or weights to null"
                )
        for name in self.architectures:
            if "scratch" in self.arms and not self.models[name].pretrained:
                raise ValueError(
                    f"train.arms has 'scratch' but {name!r} has no pretrained weights, so it would "
                    "be the arm real again; leave scratch out or give that model weights"
                )
        return self


class Distill(Section):
    """Students that learn from a trained teacher (DerMAE, arXiv 2602.19848, section 2.3).

    Everything not named here is as in `train`: seeds, labels, image size, optimiser, augmentation.
    """

    students: Annotated[list[Name], Field(max_length=100), EachOnce] = []
    """Names of `train.models` that are not in `train.architectures`; none: no student."""
    teacher: Name = "vit"
    """One of `train.architectures`. The student of a seed learns from its cell of the same seed:
    from the arm `mixture` where that is trained, else from `real`."""
    alpha: Fraction = 0.5
    """Weight of the teacher: the loss is (1 - alpha) CE + alpha T^2 KL(teacher || student). The
    paper gives no value, nor one of the temperature."""
    temperature: Annotated[float, Field(ge=0.01, le=1000.0)] = 4.0
    """T, by which the logits of both are divided."""
    arms: Annotated[list[StudentArm], Field(min_length=1, max_length=3), EachOnce] = [
        "real",
        "mixture",
        "no_teacher",
    ]
    """`real`: distilled on the real images; `mixture`: on real and synthetic ones; `no_teacher`:
    the mixture with cross-entropy alone, for as many steps."""
    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """null: `train.epochs`."""
    batch: Batch | None = None
    """null: `train.batch`."""

    @field_validator("alpha")
    @classmethod
    def _teaches(cls, alpha: float) -> float:
        if alpha == 0:
            raise ValueError(
                "0 gives the teacher no weight, so mixture would be the arm no_teacher again; "
                "raise it, such as to 0.5"
            )
        return alpha


class ZeroShot(Section):
    """Classifiers that saw none of our images (paper section 3.3, Table 3 and Figure 5)."""

    run: Annotated[list[Name], Field(max_length=100), EachOnce] = []
    """Names of `models` to score on the test split."""
    classes: Annotated[
        dict[Class, Annotated[list[Text], Field(min_length=1, max_length=100)]], Field(max_length=2)
    ]
    """The wording of each class; several phrasings are averaged."""
    templates: Annotated[list[Text], Field(min_length=1, max_length=100)]
    """Sentences with `{c}` for the class; their text features are averaged."""
    models: Annotated[dict[Name, PathText], Field(max_length=100)] = {}
    """Image-text models that open_clip opens: `hf-hub:owner/name@revision`, or a folder with
    open_clip's files."""
    batch: Batch = 64

    @model_validator(mode="after")
    def _models_exist(self) -> ZeroShot:
        for name in self.run:
            if name not in self.models:
                known = ", ".join(sorted(self.models)) or "none"
                raise ValueError(f"zero_shot.run names {name!r}, not in zero_shot.models ({known})")
            repository, _, revision = self.models[name].removeprefix("hf-hub:").partition("@")
            if self.models[name].startswith("hf-hub:") and not revision:
                place = f"zero_shot.models.{name}"
                raise ValueError(hub.unpinned(place, repository, "@revision after its name"))
        for label in get_args(Class):
            if not self.classes.get(label):
                raise ValueError(f"zero_shot.classes has no wording for {label}; give at least one")
        for template in self.templates:
            if "{c}" not in template:
                raise ValueError(
                    f"zero_shot template {quoted(template)} lacks {{c}}; put the class there"
                )
        return self


class Evaluate(Section):
    """Figures on the held-out test split."""

    bootstrap_samples: Annotated[int, Field(ge=100, le=50_000)] = 1000
    confidence: OpenFraction = 0.95
    specificities: Annotated[list[OpenFraction], Field(max_length=20), EachOnce] = [0.9, 0.95]
    """Specificities at which sensitivity is reported."""
    sensitivities: Annotated[list[OpenFraction], Field(max_length=20), EachOnce] = [0.9, 0.95]
    """Sensitivities at which specificity is reported."""
    minimum_group: Count = 10
    """A figure of a group needs this many lesions of every class it rests on (images of one lesion
    count once); with fewer the report says so."""
    batch: Batch = 128


class Promote(Section):
    """MLflow registry."""

    architecture: Name = "vit"
    """Only cells of this architecture, which may be a student, are candidates."""
    model_name: Name = "lesion-vit"
    bootstrap_samples: Annotated[int, Field(ge=100, le=50_000)] = 2000
    confidence: OpenFraction = 0.95
    specificity: OpenFraction = 0.9
    """The specificity at which the candidate's sensitivity must not be worse."""
    sensitivity_tolerance: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """How much lower the candidate's sensitivity may be."""
    in_distribution_quantile: OpenFraction = 0.99
    """Fraction of validation images that must not be flagged as out of distribution."""


class Report(Section):
    """The HTML report."""

    grid_images: Annotated[int, Field(ge=2, le=64)] = 16
    """Images per class in the real and synthetic grids."""
    runs: bool = False
    """Whether numbers lead to their MLflow runs, whose hours and energy are given too; the page
    then differs between stores, and otherwise not between equal inputs."""
