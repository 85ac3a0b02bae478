"""Parameters of the stages `backbone`, `finetune` and `synthesize`.

`finetune` and `synthesize` hold what every generator reads, and a subsection for each generator in
`choices.GENERATORS`, whose schema lies in that generator's own folder.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, create_model, model_validator

from dermaflux.core import hub
from dermaflux.errors import quoted
from dermaflux.params.choices import GENERATORS, generator_schema
from dermaflux.params.fields import (
    Batch,
    Class,
    Count,
    CountOrZero,
    Draw,
    EachOnce,
    GeneratorSettings,
    LearningRate,
    MatchBy,
    PathText,
    Scale,
    Section,
    SkinTone,
    Text,
)

RELEASED_BACKBONE = "backbones/tiny-flux"
"""The trained tiny FluxPipeline that comes with the repository: a folder of it."""


class Tiny(Section):
    """Training of the few-million-parameter FluxPipeline that stands in for FLUX.1-dev."""

    images: Annotated[int, Field(ge=1, le=1_000_000)] = 1200
    """Rendered lesions, drawn from a stream the corpus does not use."""
    autoencoder_steps: Count = 700
    autoencoder_batch: Batch = 8
    autoencoder_learning_rate: LearningRate = 2e-3
    autoencoder_crop: Annotated[int, Field(ge=32, le=128, multiple_of=8)] = 64
    """Side of the training crops in pixels; the rendered lesions have 128."""
    minimum_psnr: Annotated[float, Field(gt=0.0, le=100.0)] = 27.0
    """Reconstruction quality in dB below which the flow is not trained."""
    flow_steps: Count = 1000
    flow_batch: Batch = 16
    flow_learning_rate: LearningRate = 1e-3


class Backbone(Section):
    """The text-to-image model that is adapted: a diffusers repository."""

    repository: PathText = "tiny"
    """A folder, a hub id such as `black-forest-labs/FLUX.1-dev`, or `tiny` (trained here)."""
    revision: Text | None = None
    """Commit of the hub repository; needed for a hub id, so that a run can be repeated."""
    tiny: Tiny = Tiny()

    @property
    def small(self) -> bool:
        """Whether it is one of the demo's, not a published text-to-image model."""
        return self.repository in ("tiny", RELEASED_BACKBONE)

    def check_pinned(self, root: Path) -> None:
        """Raise `ValueError` for a hub id without a revision; folders are relative to `root`."""
        local = self.repository == "tiny" or (root / self.repository).is_dir()
        if self.revision is None and not local:
            raise ValueError(
                hub.unpinned("backbone.repository", self.repository, "backbone.revision")
            )


class _GeneratorSections(Section):
    """A section of parameters that every generator reads, and a subsection for each generator."""

    def settings(self, generator: str) -> GeneratorSettings:
        """The subsection of a generator; raises `ValueError` when it is missing."""
        settings: GeneratorSettings | None = getattr(self, generator)
        if settings is None:
            name = f"{type(self).__name__.lower()}.{generator}"
            raise ValueError(
                f"parameter {name!r} is missing and generator is {generator!r}; add it "
                "(profiles/paper.yaml shows every section)"
            )
        return settings

    def chosen(self, generator: str) -> dict[str, Any]:
        """The shared values and those of one generator, under its name: what a run depends on."""
        return self.model_dump(exclude=set(GENERATORS) - {generator})


class FinetuneShared(_GeneratorSections):
    """The stage `finetune`: which images train the generator, and how it is judged on others."""

    splits: Annotated[
        list[Literal["train", "validation"]], Field(min_length=1, max_length=2), EachOnce
    ] = ["train"]
    """Splits that train the generator. With `validation`, under `ingest.policy: as_published` and
    without a held-out loss, it sees as many images as the paper's, which mentions no validation
    part; classifiers are then selected on images that the generator has seen."""
    scales: Annotated[list[Scale], Field(min_length=1, max_length=3), EachOnce] = [128, 256, 512]
    """Training scales in pixels; images of other scales are left out and counted."""
    maximum_images: CountOrZero = 0
    """Training images taken, class-balanced; 0 means all."""
    draw: Draw = "pooled"
    """Which of them: `pooled`, as published, of each class from the whole training split, so that
    what the generator learns of a class may be the look of its sources. `matched`: in pairs of a
    benign and a malignant image that agree in `match_by`; the held-out images likewise."""
    match_by: MatchBy = ["source", "scale"]
    validation_images: CountOrZero = 64
    """Images of the validation split for the held-out loss; 0 switches it off."""
    validation_steps: Count = 200
    """Steps between two held-out losses, which validation_loss.csv lists."""

    @model_validator(mode="after")
    def _no_image_trains_and_judges(self) -> FinetuneShared:
        if "train" not in self.splits:
            raise ValueError(
                f"splits is {quoted(self.splits)} but the split train has to be one of them; add it"
            )
        if "validation" in self.splits and self.validation_images:
            raise ValueError(
                f"splits names validation but validation_images {self.validation_images} would "
                "take the held-out loss on images that train; set it to 0, or splits to [train]"
            )
        return self


def _proportions(value: Any) -> Any:
    """Refuse what is neither a word nor shares of one whole, before the union gives its error."""
    if isinstance(value, str) and value in ("balanced", "natural"):
        return value
    if not isinstance(value, dict) or not value:
        raise ValueError(
            f"{quoted(value)} gives no proportions; write balanced, natural, or the share of each "
            "class such as {nevus: 0.6, melanoma: 0.4}"
        )
    for name, share in value.items():
        if not isinstance(name, str):
            raise ValueError(f"the class {quoted(name)} is not text; put it in quotes")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise ValueError(
                f"the share of {quoted(name)} is {quoted(share)} but must be above 0 and at most 1;"
                " correct it, or leave the class out"
            )
    # Not rescaled: a slip in one share would change all the others.
    if abs(sum(value.values()) - 1) > _ROUNDING:
        raise ValueError(
            f"the shares {quoted(value)} add up to {sum(value.values()):.4g}; write shares that add"
            " up to 1, or natural for those of the training images"
        )
    return value


_ROUNDING = 0.005  # of shares written with two decimals
Proportions = Annotated[
    Literal["balanced", "natural"]
    | Annotated[dict[Text, Annotated[float, Field(gt=0, le=1)]], Field(max_length=1000)],
    BeforeValidator(_proportions),
]


def _wanted(value: Any) -> Any:
    """Refuse what is no distribution of one attribute."""
    if value is None:
        return None
    if not isinstance(value, dict) or len(value) != 1 or not {*value} <= {"skin_tone", "diagnosis"}:
        raise ValueError(
            f"{quoted(value)} is not one distribution; write null, or the shares of skin_tone or "
            "of diagnosis, such as {skin_tone: {I-II: 0.5, V-VI: 0.5}}"
        )
    shares = next(iter(value.values()))
    if not isinstance(shares, dict):
        raise ValueError(
            f"{quoted(shares)} gives no shares; write one for each value, such as "
            "{I-II: 0.5, V-VI: 0.5}"
        )
    unknown = [name for name in shares if "skin_tone" in value and name not in get_args(SkinTone)]
    if unknown:
        raise ValueError(
            f"the skin tone {quoted(unknown[0])} is not one of {', '.join(get_args(SkinTone))}; "
            "write one of them"
        )
    return {name: _proportions(shares) for name in value}


Wanted = Annotated[
    dict[
        Literal["skin_tone", "diagnosis"],
        Annotated[dict[Text, Annotated[float, Field(gt=0, le=1)]], Field(max_length=1000)],
    ]
    | None,
    BeforeValidator(_wanted),
]


class SynthesizeShared(_GeneratorSections):
    """The stage `synthesize`: the synthetic pool."""

    images: Annotated[int, Field(ge=2, le=10_000_000, multiple_of=2)] = 600
    """Size of the synthetic pool."""
    conditions: Literal["malignancy", "diagnosis", "none"] = "malignancy"
    """What each image is asked to show: benign or malignant, a diagnosis of the training split, or
    nothing, with a generator that can; such images are labelled `indeterminate`."""
    proportions: Proportions = "balanced"
    """How many images each class gets: equally many, as many as among training images, or shares
    that add up to 1, such as `{nevus: 0.6, melanoma: 0.4}`; classes not named get none."""
    wanted: Wanted = None
    """A distribution of one attribute that prompts are drawn for, as shares that add up to 1:
    `{skin_tone: {I-II: 0.4, III-IV: 0.3, V-VI: 0.3}}` within each class, or `{diagnosis: {nevus:
    0.5, melanoma: 0.5}}` of the pool. null: whatever the prompts drawn describe."""
    scale: Scale = 128
    """Side in pixels of every image."""
    batch: Batch = 16
    """Images sampled together."""
    shard_images: Count = 500
    """Images per Parquet shard; processes share the work shard by shard."""
    prompt_source: Literal["captions", "held_out", "file", "label"] = "captions"
    """Prompts: `captions` trained with, `held_out` ones of training images, those of `prompt_file`,
    or the paper's label-only sentence, which names the diagnosis where that is asked for."""
    prompt_file: PathText = "prompts/dermoscopy.csv"
    """The user's own prompts, where `prompt_source` is `file`."""
    prompt_draw: Literal["image", "text"] = "image"
    """What is equally likely within a class: each `image` described, as VAP-Diffusion draws, so
    that a sentence of many images comes often; or each distinct `text`."""
    select: Literal["none", "uncertain"] = "none"
    """Which of the sampled images make up the pool: all, or those of each class of which the stage
    `selector`'s classifier is least certain."""
    candidates: Annotated[int, Field(ge=1, le=1000)] = 4
    """Images sampled for each one kept, where `select` is not none."""

    @property
    def column(self) -> Literal["label", "diagnosis"]:
        """Column of the table whose values are the classes that images are asked to show."""
        return "diagnosis" if self.conditions == "diagnosis" else "label"

    @model_validator(mode="after")
    def _candidates_leave_a_choice(self) -> SynthesizeShared:
        if self.select != "none" and self.candidates < 2:
            raise ValueError(
                f"select is {self.select!r} but candidates {self.candidates} leaves nothing to "
                "choose from; raise candidates to 2 or more, or set select to none"
            )
        return self

    @model_validator(mode="after")
    def _wanted_is_not_asked_for_already(self) -> SynthesizeShared:
        if self.wanted is not None and self.conditions == "none":
            raise ValueError(
                f"wanted is {quoted(self.wanted)} but with conditions 'none' images are sampled "
                "without a prompt; set wanted to null, or conditions to malignancy"
            )
        if self.wanted is not None and "diagnosis" in self.wanted and self.column == "diagnosis":
            raise ValueError(
                f"wanted is {quoted(self.wanted)} but with conditions 'diagnosis' proportions says "
                "how many images show each; write the shares there, and set wanted to null"
            )
        return self

    @model_validator(mode="after")
    def _proportions_name_classes(self) -> SynthesizeShared:
        if self.conditions == "none" and self.proportions != "balanced":
            raise ValueError(
                f"proportions is {quoted(self.proportions)} but with conditions 'none' no class is "
                "asked for; set it to balanced, or conditions to diagnosis"
            )
        if isinstance(self.proportions, str) or self.conditions != "malignancy":
            return self
        for name in self.proportions:
            if name not in get_args(Class):
                close = difflib.get_close_matches(name.lower(), get_args(Class), n=1)
                hint = f"write {close[0]}" if close else "write benign and malignant"
                raise ValueError(
                    f"proportions names {quoted(name)}, which is not a class of conditions "
                    f"'malignancy'; {hint}, or set conditions to diagnosis"
                )
        return self


def _with_subsections(shared: type[_GeneratorSections], name: str) -> Any:
    """The shared section with an optional subsection for every registered generator."""
    fields: dict[str, Any] = {
        generator: (generator_schema(generator, name) | None, None) for generator in GENERATORS
    }
    return create_model(name, __base__=shared, __doc__=shared.__doc__, **fields)


if TYPE_CHECKING:
    Finetune = FinetuneShared
    Synthesize = SynthesizeShared
else:
    Finetune = _with_subsections(FinetuneShared, "Finetune")
    Synthesize = _with_subsections(SynthesizeShared, "Synthesize")
