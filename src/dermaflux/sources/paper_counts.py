"""The paper's image counts from those that the adapters declare. Pure.

The paper states 400,901 training images at 128 pixels, 22,140 at 256 and 85,303 at 512, together
508,344 (section 2.1), and "approximately 9,100" test images. It counts so: one bucket per dataset,
the published training parts, DERM12345's test part too, HIBA without its actinic keratoses, nothing
deduplicated. These are images before `ingest` takes a validation split from them, of which the
paper says nothing: a generator trained on the split `train` sees fewer. Two of three sums then
close; at 128 pixels 158 images stay unexplained.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dermaflux.sources.adapter import Source

PAPER = {128: 400_901, 256: 22_140, 512: 85_303}
"""Training images per bucket in pixels (paper, section 2.1)."""
TOTAL = 508_344
RESIDUE = {128: 158, 256: 0, 512: 0}
"""Images by which the declared counts exceed the paper's, for a reason it does not give."""
HELD_OUT = 9_191
"""Images of the published test parts with a benign or malignant reading; the paper rounds."""


def datasets(sources: Iterable[Source]) -> dict[str, dict[str, str | int]]:
    """The paper's Table 1 as the adapters declare it: a dataset's `title`, images and `scale`.

    `training` and `test` are the images that the paper can train and test on, `scale` its bucket in
    pixels; datasets that the paper does not use are left out.
    """
    return {
        source.name: {
            "title": source.title,
            "training": training_images(source),
            "test": test_images(source),
            "scale": source.published_scale,
        }
        for source in sources
        if source.published_scale is not None
    }


@dataclass(frozen=True)
class Sum:
    """One line of the check: what was added up, and what it must give."""

    name: str
    terms: dict[str, int]
    residue: int
    paper: int

    @property
    def counted(self) -> int:
        """What the declared counts give."""
        return sum(self.terms.values())

    @property
    def closes(self) -> bool:
        """Whether the sum, less the stated residue, is the paper's."""
        return self.counted - self.residue == self.paper


def training_images(source: Source) -> int:
    """Images of a dataset of the paper that it trains on."""
    images = 0
    for split, counts in source.counts.items():
        if split == "train" or source.test_in_paper:
            images += counts.images
            images -= counts.indeterminate if source.indeterminate_dropped_in_paper else 0
    return images


def test_images(source: Source) -> int:
    """Images of a dataset that the paper can test on: its test part without meaningless classes."""
    counts = source.counts.get("test")
    if counts is None or source.published_scale is None or source.test_in_paper:
        return 0
    return counts.images - counts.meaningless


def sums(sources: Iterable[Source]) -> list[Sum]:
    """The training sum of each bucket, their total, and the held-out sum."""
    sources = list(sources)
    lines = []
    for scale, paper in PAPER.items():
        chosen = [source for source in sources if source.published_scale == scale]
        terms = {source.name: training_images(source) for source in chosen}
        lines.append(Sum(f"training at {scale} pixels", terms, RESIDUE[scale], paper))
    terms = {f"{scale} pixels": line.counted for scale, line in zip(PAPER, lines, strict=True)}
    lines.append(Sum("training in all", terms, sum(RESIDUE.values()), TOTAL))
    tests = {source.name: test_images(source) for source in sources if test_images(source)}
    lines.append(Sum("held-out test", tests, 0, HELD_OUT))
    return lines


def held_out_classes(sources: Iterable[Source]) -> tuple[int, int, int]:
    """Benign, malignant and indeterminate images of the held-out test set."""
    parts = [source.counts["test"] for source in sources if test_images(source)]
    return (
        sum(part.benign or 0 for part in parts),
        sum(part.malignant or 0 for part in parts),
        sum(part.indeterminate for part in parts),
    )


def inconsistent(source: Source) -> list[str]:
    """Published parts whose classes do not add up to their images, in words."""
    return [
        f"{source.name} {split}: {counts.benign:,} benign + {counts.malignant:,} malignant + "
        f"{counts.indeterminate:,} indeterminate + {counts.meaningless:,} without meaning is not "
        f"{counts.images:,}"
        for split, counts in source.counts.items()
        if counts.benign is not None
        and counts.malignant is not None
        and counts.benign + counts.malignant + counts.indeterminate + counts.meaningless
        != counts.images
    ]
