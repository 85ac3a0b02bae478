"""Parameters of the stages `backbone`, `finetune` and `synthesize`.

`finetune` and `synthesize` hold what every generator reads, and a subsection for each generator in
`choices.GENERATORS`, whose schema lies in that generator's own folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model

from dermaflux.errors import quoted
from dermaflux.params.choices import GENERATORS, generator_schema
from dermaflux.params.fields import (
    Batch,
    Count,
    CountOrZero,
    EachOnce,
    GeneratorSettings,
    LearningRate,
    PathText,
    Scale,
    Section,
    Text,
)


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
    """`tiny` (trained here), a hub id such as `black-forest-labs/FLUX.1-dev`, or a folder."""
    revision: Text | None = None
    """Commit of the hub repository; needed for a hub id, so that a run can be repeated."""
    tiny: Tiny = Tiny()

    def check_pinned(self) -> None:
        """Raise `ValueError` for a hub id without a revision."""
        local = self.repository == "tiny" or Path(self.repository).is_dir()
        if self.revision is None and not local:
            raise ValueError(
                f"backbone.repository {quoted(self.repository)} is not a folder here and, as a hub "
                "repository, has no backbone.revision; correct the path, or pin the commit to use, "
                "as its page on the hub shows it under Files"
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

    scales: Annotated[list[Scale], Field(min_length=1, max_length=3), EachOnce] = [128, 256, 512]
    """Training scales in pixels; images of other scales are left out and counted."""
    maximum_images: CountOrZero = 0
    """Training images taken, class-balanced; 0 means all."""
    validation_images: CountOrZero = 64
    """Images of the validation split for the held-out loss; 0 switches it off."""
    validation_steps: Count = 200
    """Steps between two held-out losses, which validation_loss.csv lists."""


class SynthesizeShared(_GeneratorSections):
    """The stage `synthesize`: the synthetic pool."""

    images: Annotated[int, Field(ge=2, le=10_000_000, multiple_of=2)] = 600
    """Size of the synthetic pool, half benign and half malignant."""
    scale: Scale = 128
    """Side in pixels of every image."""
    batch: Batch = 16
    """Images sampled together."""
    shard_images: Count = 500
    """Images per Parquet shard; processes share the work shard by shard."""
    prompt_source: Literal["captions", "held_out", "label"] = "captions"
    """Prompts: `captions` trained with, `held_out` ones of training images, or the paper's
    label-only sentence."""


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
