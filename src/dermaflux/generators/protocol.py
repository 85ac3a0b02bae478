"""What a generator gives to the stages `finetune` and `synthesize`.

A generator is one folder below this one, listed in `params.choices.GENERATORS`, with three entries:
`settings` (its parameters), `training.trainer` (an object `TRAINER`) and `sampling.generator` (an
object `GENERATOR`). They are apart so that a change in training does not sample the pool again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from dermaflux.core.arrays import Pixels

if TYPE_CHECKING:
    from dermaflux.core.checkpoints import Checkpoint
    from dermaflux.core.distributed import Processes
    from dermaflux.generators.data.images import TrainingImages
    from dermaflux.params import Finetune, Synthesize
    from dermaflux.params.fields import GeneratorSettings
    from dermaflux.params.runtime import FinetuneRuntime
    from dermaflux.tracking.runs import Log
    from dermaflux.training.fit import Curves

Json = str | int | float | bool | None
Need = Literal["captions", "backbone"]
"""What a generator reads besides the corpus."""
Facts = dict[str, Any]
"""What finetune.json says, JSON-serialisable; `summary` is a sentence for the report."""
FACTS = "finetune.json"
"""File of these in models/generator/."""


@dataclass(frozen=True)
class Models:
    """Where models lie."""

    generator: Path
    """models/generator/, which the stage `finetune` writes."""
    backbone: Path
    """models/backbone/."""


@dataclass(frozen=True)
class Condition:
    """What one image shall show."""

    label: str
    prompt: str
    """Without captions, the sentence of the label."""
    scale: int
    """Side in pixels."""
    seed: int
    """Of its noise, in [0, 2^63)."""
    diagnosis: str | None = None
    """Of the image that the prompt describes, or that is asked for; None where it is not known."""


@dataclass(frozen=True)
class Provenance:
    """Where an image comes from: columns of the table, and what else decides the pixels."""

    weights: str
    """SHA-256 hex digest of the trained weights."""
    licence: str
    """Of the images."""
    backbone: str | None = None
    """Identity of the frozen model below the trained weights; None for a model without one."""


class Sampler(Protocol):
    """Samples images. An image is a function of its condition, the weights and the settings."""

    @property
    def settings(self) -> Mapping[str, Json]:
        """All that `Generator.open` needs to sample alike; the column `sampler_settings`.

        `steps` and `guidance`, where there are such, are columns of their own as well.
        """
        ...

    @property
    def provenance(self) -> Provenance:
        """Weights and licence."""
        ...

    def groups(self, conditions: Sequence[Condition]) -> list[tuple[int, ...]]:
        """For each condition, a sort key of those that may share a forward pass."""
        ...

    def __call__(self, conditions: Sequence[Condition]) -> Pixels:
        """uint8 (B, scale, scale, 3) of conditions of one group.

        Noise comes from each condition's seed alone, so an image does not depend on its neighbours,
        up to the rounding of batched kernels.
        """
        ...


@runtime_checkable
class Generator(Protocol):
    """A model that samples images."""

    needs: frozenset[Need]

    def weights_id(self, models: Models) -> str:
        """SHA-256 hex digest of the trained weights; raises `InputError` where there are none."""
        ...

    def open(
        self, models: Models, settings: Mapping[str, Json], batch: int | None = None
    ) -> Sampler:
        """A sampler with the generator's parameters, or with the settings of a manifest row.

        Reads small files; weights are loaded for the first image. `batch` is the size of a full
        batch, for models that are compiled for one size. Raises `InputError` for absent weights or
        weights of another backbone.
        """
        ...


@dataclass(frozen=True)
class Wanted:
    """What a pool shall show."""

    images: Mapping[str, int]
    """Class -> images of the pool; a class is a label or a diagnosis, as `conditions` says."""
    labels: Mapping[str, frozenset[str]]
    """Class -> labels of its training images."""


@runtime_checkable
class Collection(Protocol):
    """Images that others made, in the place of a generator."""

    needs: frozenset[Need]

    def named(self, settings: GeneratorSettings) -> Mapping[str, int]:
        """Class -> files whose names or labels say so, before any is opened.

        Raises `InputError` where there is nothing to list.
        """
        ...

    def collect(
        self,
        section: Synthesize,
        settings: GeneratorSettings,
        output: Path,
        report: Path,
        wanted: Wanted | None = None,
    ) -> None:
        """Write the pool to `output`, and counts and quarantine to `report`.

        Without `wanted`, half of the images are of each label. Raises `InputError` when there are
        too few images.
        """
        ...


@dataclass(frozen=True)
class TrainingRun:
    """One call of the stage `finetune`."""

    section: Finetune
    settings: GeneratorSettings
    runtime: FinetuneRuntime
    seed: int
    corpus: Path
    captions: Path
    backbone: Path
    grid: Path
    """PNG of images from fixed prompts."""
    log: Log
    processes: Processes
    synthesize: Synthesize | None = None
    """How the pool will be sampled, to show such images on the way; decides no output."""


class Training(Protocol):
    """A model in memory, ready to be trained."""

    @property
    def identity(self) -> Mapping[str, Json]:
        """What decides the trained weights besides parameters, images and code."""
        ...

    def fit(self, saved: Checkpoint) -> Curves:
        """Train from the checkpoint or the start, with held-out losses and grids on the way."""
        ...

    def save(self, folder: Path) -> Facts:
        """Write the weights; called in the main process, after `fit`."""
        ...


class Trainer(Protocol):
    """Trains a generator, or puts a finished one in its place."""

    needs: frozenset[Need]

    def trains(self, settings: GeneratorSettings) -> bool:
        """Whether these parameters ask for training."""
        ...

    def install(self, run: TrainingRun, folder: Path) -> Facts:
        """Write what takes the place of trained weights; called where nothing is trained."""
        ...

    def prepare(self, run: TrainingRun, images: TrainingImages) -> Training:
        """Load the model; called in every process. Raises `InputError` when it does not fit."""
        ...
