"""Which published images make the corpus: the paper's choice, and a cleaner one.

Pure; reads and writes nothing. `as_published` repeats the choices that reproduce the counts of the
paper; `clean` leaves no copy, no leak and no enlarged image behind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from dermaflux.corpus.decoding.decode import bucket

if TYPE_CHECKING:
    from dermaflux.params import Ingest
    from dermaflux.sources.adapter import Source

Name = Literal["clean", "as_published"]
NAMES: tuple[Name, ...] = ("clean", "as_published")


@dataclass(frozen=True, slots=True)
class Policy:
    """Which decoded images make the corpus, and at which scale."""

    buckets: Literal["native", "published"]
    """`native`: scale from the shorter side; `published`: the paper's scale per dataset."""
    minimum_side: int
    """Shorter published side in pixels below which an image is left out; 0 keeps all."""
    indeterminate: Literal["drop", "keep", "benign", "malignant"]
    """What becomes of diagnoses that are neither; `keep` leaves the label `indeterminate`."""
    duplicates: Literal["drop", "keep"]
    leak_guard: bool
    """Whether images linked to a test image leave training."""
    published_test: bool
    """False: test parts that the paper trains on (DERM12345's) are training images here too."""
    validation_by: Literal["group", "image", "published"] = "group"
    """What is drawn for validation, or that published validation parts are taken."""
    test_by: Literal["published", "group", "image"] = "published"
    """What is drawn as the test part, or that published test parts are taken."""

    def label(self, source: Source, label: str) -> str | None:
        """Label of an image in the corpus; None when the image is left out."""
        if label != "indeterminate":
            return label
        if self.buckets == "published" and source.indeterminate_dropped_in_paper:
            return None
        if self.indeterminate == "keep":
            return label
        return None if self.indeterminate == "drop" else self.indeterminate

    def scale(self, source: Source, shorter: int) -> int:
        """Scale in pixels of an image whose shorter published side is `shorter` pixels."""
        published = source.published_scale if self.buckets == "published" else None
        return published or bucket(shorter)

    def held_out(self, source: Source, split: str) -> bool:
        """Whether an image of this published split is a test image."""
        return self.test_by == "published" and self._of_a_test_part(source, split)

    def passed_over(self, source: Source, split: str) -> bool:
        """Whether an image of this published split leaves, since another test part is drawn."""
        return self.test_by != "published" and self._of_a_test_part(source, split)

    def _of_a_test_part(self, source: Source, split: str) -> bool:
        return split == "test" and (self.published_test or not source.test_in_paper)


AS_PUBLISHED = Policy("published", 0, "keep", "keep", leak_guard=False, published_test=False)
"""The paper: no size filter can have been applied, since native ISIC 2024 tiles start at 61 pixels;
actinic keratoses are missing in HIBA only; DERM12345's test images are in the training counts."""


def policy(name: Name, settings: Ingest) -> Policy:
    """The policy of that name.

    Of the parameters, `as_published` uses only the class of indeterminate images, which the paper
    does not state; with `drop` they stay in the corpus, as its counts require, and unlabelled; and
    what is drawn for validation and test.
    """
    if name == "as_published":
        choice = settings.indeterminate
        return replace(
            AS_PUBLISHED,
            indeterminate="keep" if choice == "drop" else choice,
            validation_by=settings.validation_by,
            test_by=settings.test_by,
        )
    return Policy(
        "native",
        settings.minimum_side,
        settings.indeterminate,
        settings.duplicates,
        leak_guard=True,
        published_test=True,
        validation_by=settings.validation_by,
        test_by=settings.test_by,
    )
