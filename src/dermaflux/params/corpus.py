"""Parameters of the stages `ingest` and `validate`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from dermaflux.errors import quoted
from dermaflux.params.fields import (
    CountRange,
    Fraction,
    FractionRange,
    Header,
    Licence,
    Modality,
    OpenFraction,
    PathText,
    Scale,
    Section,
    Side,
    Text,
)
from dermaflux.params.label_words import LabelWords


class OwnColumns(Section):
    """Names of the columns in a team's own CSV file; null where it has no such column."""

    image: Header
    """File name, with or without suffix, or path below the folder."""
    label: Header
    lesion_id: Header | None = None
    patient_id: Header | None = None
    diagnosis: Header | None = None
    skin_tone: Header | None = None
    """Fitzpatrick type or pair of types: II, 2, FST2, I-II, 12."""
    split: Header | None = None
    """`train`, `validation` (which counts as training) or `test`."""
    licence: Header | None = None
    """A licence such as CC-BY, where images differ."""


def _top_folder(folder: Any) -> Any:
    """A folder's name, without a slash behind it; refused when it is a path."""
    if not isinstance(folder, str):
        return folder
    name = folder.rstrip("/\\").removeprefix("./")
    if not name or name in (".", "..") or re.search(r"[/\\]", name):
        raise ValueError(
            f"{quoted(folder)} is no name of a folder directly in the data folder; write only that "
            "name, since images are read at any depth below it, or set data to the folder around it"
        )
    return name


class OwnDataset(Section):
    """A team's own images: a folder tree, with or without a CSV file."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=64)]
    """Prefix of the image ids."""
    folder: Annotated[str, Field(max_length=255), BeforeValidator(_top_folder)]
    """Name of a folder directly in the data folder."""
    csv: PathText | None = None
    """CSV file in that folder; without it, folder names give the labels."""
    columns: OwnColumns | None = None
    labels: LabelWords = {}
    """What other words for a label mean, such as `naevus: benign` or `1: malignant`; case does not
    matter, and 1, 1.0, true and yes are one word."""
    licence: Licence = "own"
    modality: Modality = "dermoscopic"
    split: Literal["train", "test"] = "train"
    """Part of images for which neither a folder called `test` nor the CSV file says otherwise."""
    scale: Scale = 512
    """Bucket in pixels where each dataset has one."""

    @model_validator(mode="after")
    def _csv_has_columns(self) -> OwnDataset:
        if (self.csv is None) != (self.columns is None):
            raise ValueError(
                f"ingest.own {self.name!r} has only one of csv and columns; give both or neither"
            )
        return self


class Ingest(Section):
    """Downloads to audited table (paper section 2.1)."""

    sources: Annotated[list[Text], Field(max_length=100)] = []
    """Datasets to read; empty means every dataset in the data folder."""
    own: Annotated[list[OwnDataset], Field(max_length=1000)] = []
    """A team's own images, read in addition to the published datasets."""
    policy: Literal["clean", "as_published"] = "clean"
    """`as_published` repeats the paper's corpus, `clean` the one below; both are counted."""
    minimum_side: Side = 128
    """`clean`: shorter native side in pixels below which an image is quarantined (section 2.1)."""
    indeterminate: Literal["drop", "benign", "malignant"] = "drop"
    """What becomes of diagnoses that are neither, such as actinic keratosis; with `drop`,
    `as_published` keeps them in the corpus as `indeterminate`, where no classifier sees them."""
    duplicates: Literal["drop", "keep"] = "drop"
    """`clean`: one image of each duplicate group; `keep` removes only copies of test images."""
    licences: Annotated[list[Licence], Field(max_length=6)] = []
    """Only images under these licences; empty means all. [CC0, CC-BY] allows commercial use."""
    duplicate_correlation: Annotated[float, Field(ge=0.3, le=1)] = 0.5
    """Smallest correlation of fine detail at which two images count as one photograph."""
    test_fraction: OpenFraction | None = 0.2
    """Share of the groups of images (patient, lesion, duplicate group) drawn as the test part where
    no kept image is in a published one; with any published test image in the corpus nothing is
    drawn. null draws none, and stops where there is none."""
    test_by: Literal["published", "group", "image"] = "published"
    """Where the test part comes from: the `published` ones, and what `test_fraction` says; or
    `test_fraction` of the training parts, drawn by `group`, or by `image` so that images of one
    lesion fall on both sides. Published test images are then left out (VAP-Diffusion divides ISIC
    2019's training part 8:2 at random; grouping and seed are not stated)."""
    validation_fraction: OpenFraction = 0.15
    """The same for the validation part, of the groups that hold no test image."""
    validation_by: Literal["group", "image", "published"] = "group"
    """What is drawn for validation: `group`s; single `image`s, as DerMAE seems to have drawn them,
    so that images of one lesion fall on both sides; or nothing, where the `published` validation
    parts are taken, such as the 193 images of ISIC 2018. Otherwise these are left out: training
    images are then the same whichever is chosen."""
    jpeg_quality: Annotated[int, Field(ge=50, le=100)] = 95
    shard_megabytes: Annotated[float, Field(ge=0.001, le=100_000.0)] = 64.0

    @model_validator(mode="after")
    def _a_drawn_test_part_has_a_size(self) -> Ingest:
        if self.test_by != "published" and self.test_fraction is None:
            raise ValueError(
                f"test_by {self.test_by!r} draws a test part but test_fraction is null; set it, "
                "such as 0.2, or set test_by to published"
            )
        return self


class Validate(Section):
    """Limits of the Great Expectations suites."""

    minimum_side: Side = 128
    """Smallest published shorter side in pixels."""
    malignant_fraction: dict[Literal["train", "validation", "test"], FractionRange] = {
        "train": (0.0005, 0.9),
        "validation": (0.0005, 0.9),
        "test": (0.0005, 0.9),
    }
    """Smallest and largest share of malignant images per split, each widened by three standard
    errors of the images there are; every split must hold both classes, whatever the limits."""
    source_malignant_fraction: Annotated[dict[Text, FractionRange], Field(max_length=1000)] = {}
    """The same per dataset, by name, where the corpus holds it: labels read the wrong way round.
    A few images of a dataset may have another share by chance, which the widening allows for."""
    caption_characters: CountRange = (20, 1200)
    """Shortest and longest caption that is not flagged."""
    caption_fault_fraction: Fraction = 0.02
    """Largest share of captions with any one fault of the quality gate."""
    caption_repeated_fraction: Fraction = 0.1
    """Largest share of captions a model wrote that are word for word those of another image."""
