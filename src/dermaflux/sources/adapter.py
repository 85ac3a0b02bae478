"""What an adapter is: a published dataset's facts, and the records its files become.

Types only. An adapter reads CSV files and lists folders, and never opens an image; it yields one
`Record` per image file and one per CSV row that has no image, so that nothing published can get
lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Split = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a record cannot be used: a short rule that counts, and a sentence that helps."""

    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What a dataset says about one image.

    `patient_id` and `lesion_id` are unique across datasets: ids of the ISIC archive (``IP_``,
    ``IL_``) stay as they are because datasets share them, others carry the dataset's prefix.
    """

    label: str | None = None
    diagnosis: str | None = None
    patient_id: str | None = None
    lesion_id: str | None = None
    skin_tone: str | None = None
    """A word of `vocabulary.SKIN_TONES`."""
    modality: str | None = None
    """Overrides the dataset's, where it holds more than one."""
    licence: str | None = None
    """Overrides the dataset's, where it is published per image."""
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One image file with its facts, or one CSV row without an image."""

    original_id: str
    """Unique inside the dataset; a path without suffix where names repeat between folders."""
    path: Path | None
    row: str | None
    """``<CSV name>:<line>`` of the row, where there is one."""
    split: Split
    facts: Facts
    member: str | None = None
    """Key of the image inside `path`, where that is a container of many; see `container`."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Images of one published part; benign, malignant are None where nobody published them."""

    images: int
    benign: int | None
    malignant: int | None
    indeterminate: int = 0
    meaningless: int = 0
    """Images of a class such as UNK, which no reading makes benign or malignant."""


@dataclass(frozen=True)
class Source:
    """A published dataset."""

    name: str
    """Prefix of image ids, and name of its folder in the data folder."""
    title: str
    licence: str
    """A word of `vocabulary.LICENCES`; that of every image whose facts name no other."""
    modality: str
    """A word of `vocabulary.MODALITIES`."""
    citation: str
    url: str
    published_scale: int
    """The bucket in pixels that the paper puts the whole dataset in."""
    markers: tuple[str, ...]
    """Paths, any of which betrays the layout; compared case-sensitively."""
    claims: tuple[str, ...]
    """Top-level names of the layout, in case it lies open in the data folder."""
    read: Callable[[Path], Iterator[Record]] = field(repr=False)
    pairs: Callable[[Path], list[tuple[str, str]]] = field(repr=False, default=lambda root: [])
    """Published duplicates, as pairs of original ids."""
    shared_markers: tuple[str, ...] = ()
    """Paths that other layouts show too, so that they count in a folder of the dataset's name."""
    counts: Mapping[Split, Counts] = field(default_factory=dict)
    """Labelled images as published; a part whose labels are hidden is not in it."""
    mapping: str = ""
    """Which column decides benign, malignant or indeterminate, and who says so."""
    access: Literal["open", "login", "agreement"] = "open"
    bytes: int | None = None
    """Approximate download, in bytes; None where nobody states it."""
    command: str = ""
    """How to get it: a command line, or one sentence where a form must be filled in."""
    test_in_paper: bool = False
    """Whether the paper trains on the published test part; elsewhere it tests on it."""
    indeterminate_dropped_in_paper: bool = False
