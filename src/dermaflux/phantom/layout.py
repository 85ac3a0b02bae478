"""What a layout of the phantom corpus is made of: planned images and text files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from dermaflux.phantom.lesion import Label, Lesion, RandomIntegers, draw

Damage = Literal["", "truncated", "not an image", "no file", "no row"]
Size = tuple[int, int]
T = TypeVar("T")

# Names of the ISIC archive run over all its datasets; no id occurs in two of the published sets.
_ARCHIVE = ("isic2020", "hiba", "milk10k", "isic2024")


@dataclass(frozen=True)
class PlannedImage:
    """One image file of the corpus."""

    path: str
    """Relative to the data folder; the first part is the dataset."""
    lesion: Lesion
    size: Size
    """(height, width) in pixels."""
    split: str
    """As published: train, test, or all where the publisher gives no split."""
    label: str
    """As published: benign, malignant, indeterminate or unknown."""
    quality: int = 88
    """JPEG quality; PNG files ignore it."""
    damage: Damage = ""

    @property
    def source(self) -> str:
        """The dataset's name."""
        return self.path.split("/", 1)[0]


@dataclass
class Layout:
    """One dataset in its published layout."""

    images: list[PlannedImage] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """Text of CSV files by path."""
    duplicates: list[tuple[str, str, str]] = field(default_factory=list)
    """Planted pairs: (kind, path, path)."""

    def copy(self, kind: str, original: PlannedImage, duplicate: PlannedImage) -> None:
        """Add a duplicate: the same photograph under another name, re-encoded unless equal."""
        self.images.append(duplicate)
        self.duplicates.append((kind, original.path, duplicate.path))


def lesion_of(source: str, index: int, label: str) -> Lesion:
    """A lesion of a dataset; without a binary label its class is a fair coin."""
    binary: Label | None = (
        "malignant" if label == "malignant" else "benign" if label == "benign" else None
    )
    return draw(index, f"corpus/{source}", binary)


def view(lesion: Lesion, number: int) -> Lesion:
    """Another photograph of the lesion."""
    return replace(lesion, view=number)


def isic_id(source: str, index: int) -> str:
    """An id of the ISIC archive, distinct over datasets and above those of ISIC 2019."""
    number = _ARCHIVE.index(source) * 10_000 + index
    return f"ISIC_{100_000 + (number + 77) * 7_654_321 % 9_900_000:07d}"


def expanded(counts: Mapping[str, int], rng: RandomIntegers) -> list[str]:
    """Each key as often as its count says, in random order."""
    return rng.shuffled([name for name, count in counts.items() for _ in range(count)])


def pick(values: Sequence[T], rng: RandomIntegers) -> T:
    """One of the values, each equally likely."""
    return values[rng.below(len(values))]


def table(header: str, rows: Iterable[Sequence[object]]) -> str:
    """CSV text with the published header."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(next(csv.reader([header])))
    writer.writerows(rows)
    return out.getvalue()
