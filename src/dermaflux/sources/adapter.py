"""What an adapter is: the facts of a published dataset, and the records that its files become.

To add a dataset, write one module in `sources/published/` that defines `SOURCE`, and add its name
to `NAMES` in `sources/registry.py`. An adapter reads CSV files and lists folders, and never opens
an image. It yields one `Record` per image file and one per CSV row that has no image, which
`reading.files.join` does, so that nothing published gets lost. What it cannot use carries a
`Problem`. The smallest complete adapter, which tests/sources/test_registry.py runs::

    from dermaflux.core.vocabulary import identifier
    from dermaflux.sources.adapter import Counts, Facts, Source
    from dermaflux.sources.reading.files import by_stem, image_files, join
    from dermaflux.sources.reading.tables import OptionalValues, bad_value, read_csv

    LABELS = {"nevus": "benign", "melanoma": "malignant"}


    def facts(row):
        diagnosis, optional = row.values["dx"], OptionalValues()
        if diagnosis not in LABELS:
            return Facts(problem=bad_value(row, "dx", f"it must be one of {', '.join(LABELS)}"))
        patient = optional.read(row, "patient", identifier)
        return Facts(
            LABELS[diagnosis],
            diagnosis,
            patient_id=patient and f"example:{patient}",
            unread=tuple(optional.unread),
        )


    def read(root):
        rows = read_csv(root / "labels.csv", ("image", "dx", "patient"))
        return join(by_stem(image_files(root / "images")), rows, "image", facts, "train")


    SOURCE = Source(
        name="example",
        title="An example",
        licence="CC-BY",
        modality="dermoscopic",
        citation="Doe 2026",
        url="https://example.org/lesions",
        markers=("labels.csv",),
        claims=("labels.csv", "images"),
        read=read,
        counts={"train": Counts(images=4, benign=3, malignant=1)},
        mapping="dx (Doe 2026)",
        by_hand="unpack the download of https://example.org/lesions into FOLDER/example",
    )
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
"""Parts that most datasets publish; the validation split is drawn from the first. What becomes of a
published validation part is `ingest.validation_by`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a record cannot be used: a short rule to count by, and a sentence with the fix."""

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
    split: Split | None = None
    """Overrides the part that the folder or the dataset gives, where a row states it."""
    unread: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """Columns and their values that became null, as placeholders or because nothing knows them."""


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
    """Key of the image inside `path`, where that is an HDF5 file of many; see `hdf5`."""
    named: str | None = None
    """What the row calls the image, where no file has this name; see `names`."""


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
class OpenFiles:
    """A download of files below an address that anybody may fetch; zip files are unpacked."""

    base: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Collection:
    """A download of a public collection of the ISIC archive, by its number."""

    number: int


@dataclass(frozen=True)
class KaggleDataset:
    """A download from Kaggle, by the dataset's handle."""

    handle: str


Route = OpenFiles | Collection | KaggleDataset


@dataclass(frozen=True)
class Source:
    """A published dataset."""

    name: str
    """Prefix of image ids, name of its folder in the data folder, and of its module."""
    title: str
    licence: str
    """A word of `vocabulary.LICENCES`; that of every image whose facts name no other."""
    modality: str
    """A word of `vocabulary.MODALITIES`."""
    citation: str
    url: str
    markers: tuple[str, ...]
    """Paths, any of which identifies the layout; compared case-sensitively."""
    claims: tuple[str, ...]
    """Top-level names of the layout, for a data folder that is itself the dataset's folder."""
    read: Callable[[Path], Iterator[Record]] = field(repr=False)
    pairs: Callable[[Path], list[tuple[str, str]]] = field(repr=False, default=lambda root: [])
    """Published duplicates, as pairs of original ids."""
    shared_markers: tuple[str, ...] = ()
    """Paths that other layouts have too: they count only in a folder of the dataset's name."""
    counts: Mapping[Split, Counts] = field(default_factory=dict)
    """Labelled images as published; a part whose labels are hidden is not in it."""
    mapping: str = ""
    """Which column decides benign, malignant or indeterminate, and who says so."""
    access: Literal["open", "login", "agreement"] = "open"
    bytes: int | None = None
    """Approximate download, in bytes; None where nobody states it."""
    download: Route | None = None
    """How `dermaflux download` fetches it; None where that needs a person."""
    by_hand: str = ""
    """One sentence that says how to get it, where `download` is None."""
    published_scale: int | None = None
    """The bucket in pixels that the paper puts the whole dataset in; None for a dataset that is
    not in the paper: each image then has the bucket of its own size, and no sum counts it."""
    test_in_paper: bool = False
    """Whether the paper trains on the published test part; elsewhere it tests on it."""
    indeterminate_dropped_in_paper: bool = False

    @property
    def command(self) -> str:
        """How to get it: a command line, or one sentence where a form must be filled in."""
        return f"dermaflux download {self.name} --data FOLDER" if self.download else self.by_hand
