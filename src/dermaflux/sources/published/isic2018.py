"""ISIC 2018 challenge, task 3: HAM10000 with the official validation and test parts.

Reads the challenge's ``ISIC2018_Task3_{Training,Validation,Test}_Input/*.jpg``, their
``..._GroundTruth.csv`` (also in the folder of that name that its zip file holds) and
``ISIC2018_Task3_Training_LesionGroupings.csv``; or HAM10000 as Harvard's Dataverse and Kaggle have
it: ``HAM10000_images_part_{1,2}/*.jpg`` with ``HAM10000_metadata.csv``, and
``ISIC2018_Task3_Test_Images/*.jpg`` with ``ISIC2018_Task3_Test_GroundTruth.csv``; or the images of
one with the table of the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from dermaflux.core import vocabulary
from dermaflux.core.file_names import image_key
from dermaflux.sources.adapter import Counts, Facts, OpenFiles, Problem, Record, Source, Split
from dermaflux.sources.reading.files import by_stem, join
from dermaflux.sources.reading.folders import nested_image_files
from dermaflux.sources.reading.tables import OptionalValues, Row, bad_value, one_hot, read_csv

CLASSES = {
    "MEL": ("malignant", "melanoma"),
    "NV": ("benign", "nevus"),
    "BCC": ("malignant", "basal cell carcinoma"),
    "AKIEC": ("malignant", "actinic keratosis or intraepithelial carcinoma"),
    "BKL": ("benign", "benign keratosis"),
    "DF": ("benign", "dermatofibroma"),
    "VASC": ("benign", "vascular lesion"),
}
"""Class -> (label, diagnosis). AKIEC is one class here (Tschandl et al. 2018), malignant as papers
on these seven classes count it; ISIC 2019 divides the same images into AK and SCC."""

_TASK = "ISIC2018_Task3"
_PARTS: Mapping[str, Split] = {"Training": "train", "Validation": "validation", "Test": "test"}
_LESIONS = f"{_TASK}_Training_LesionGroupings.csv"
_HAM = ("HAM10000_images_part_1", "HAM10000_images_part_2", "HAM10000_images")
_HAM_METADATA = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
_HAM_TEST = f"{_TASK}_Test_Images"
_HAM_FOLDERS: Mapping[str, tuple[str, ...]] = {"Training": _HAM, "Test": (_HAM_TEST,)}


def _facts(row: Row, code: str | Problem, lesion: Row | None) -> Facts:
    if isinstance(code, Problem):
        return Facts(problem=code)
    label, diagnosis = CLASSES[code]
    if lesion is None:
        return Facts(label=label, diagnosis=diagnosis)
    optional = OptionalValues()
    lesion_id = optional.read(lesion, "lesion_id", vocabulary.identifier)
    return Facts(label, diagnosis, lesion_id=lesion_id, unread=tuple(optional.unread))


def _of_metadata(row: Row) -> Facts:
    """A row of HAM10000's own tables: the class in lower case, and the lesion."""
    code = row.values["dx"].upper()
    if code not in CLASSES:
        limit = f"it must be one of {', '.join(CLASSES).lower()}"
        return Facts(problem=bad_value(row, "dx", limit))
    return _facts(row, code, row)


def _existing(root: Path, names: tuple[str, ...]) -> Path:
    """The first that is there; the first of all where none is, for the error that names it."""
    return next((root / name for name in names if (root / name).is_file()), root / names[0])


def _is_metadata(truth: Path) -> bool:
    """Whether a table is one of HAM10000's own (image_id, dx) and not the challenge's."""
    if not truth.is_file():
        return False
    with truth.open("rb") as file:
        return b"image_id" in file.readline(4096).lower()


def _layout(root: Path, part: str) -> tuple[Path, list[Path]]:
    """Table and folders of a part: either table serves either folders, where one has no other."""
    name = f"{_TASK}_{part}_GroundTruth"
    tables: tuple[str, ...] = (f"{name}.csv", f"{name}/{name}.csv", f"{name}.tab")
    folders, others = [root / f"{_TASK}_{part}_Input"], _HAM_FOLDERS.get(part, ())
    ham = not nested_image_files(folders[0]) and any((root / other).is_dir() for other in others)
    if ham:
        folders = [root / other for other in others]
    if part == "Training":
        tables = (*_HAM_METADATA, *tables) if ham else (*tables, *_HAM_METADATA)
    return _existing(root, tables), folders


def read(root: Path) -> Iterator[Record]:
    """Records of the three parts; a part that was not downloaded is left out."""
    for part, split in _PARTS.items():
        truth, folders = _layout(root, part)
        if not truth.is_file() and not any(folder.is_dir() for folder in folders):
            continue
        images = by_stem(path for folder in folders for path in nested_image_files(folder))
        metadata = truth.name in _HAM_METADATA or _is_metadata(truth)
        if metadata:
            rows = read_csv(truth, ("image_id", "dx", "lesion_id"))
            yield from join(images, rows, "image_id", _of_metadata, split)
            continue
        rows = read_csv(truth, ("image", *CLASSES))
        # Of the other parts the challenge publishes no lesions.
        lesions = read_csv(root / _LESIONS, ("image", "lesion_id")) if part == "Training" else []
        about = {image_key(row.values["image"]): row for row in lesions}
        yield from join(
            images,
            rows,
            "image",
            lambda row, about=about: _facts(  # type: ignore[misc]
                row, one_hot(row, CLASSES), about.get(image_key(row.values["image"]))
            ),
            split,
        )


SOURCE = Source(
    name="isic2018",
    title="ISIC 2018 task 3 (HAM10000)",
    licence="CC-BY-NC",
    modality="dermoscopic",
    citation="Tschandl et al. 2018 (10.1038/sdata.2018.161); Codella et al. 2019 "
    "(arXiv:1902.03368)",
    url="https://challenge.isic-archive.com/data/#2018",
    markers=(*(f"{_TASK}_{part}_Input" for part in _PARTS), *_HAM),
    shared_markers=_HAM_METADATA,
    claims=(
        *(f"{_TASK}_{part}_Input" for part in _PARTS),
        *(f"{_TASK}_{part}_GroundTruth{suffix}" for part in _PARTS for suffix in ("", ".csv")),
        *(f"{_TASK}_Test_GroundTruth.tab", _LESIONS, *_HAM, *_HAM_METADATA, _HAM_TEST),
    ),
    read=read,
    counts={
        "train": Counts(10_015, 8_061, 1_954),
        "validation": Counts(193, 149, 44),
        "test": Counts(1_512, 1_205, 307),
    },
    mapping="class: MEL, BCC, AKIEC malignant (Tschandl et al. 2018 call AKIEC precursors and "
    "early forms of carcinoma)",
    bytes=3_100_000_000,
    download=OpenFiles(
        "https://isic-archive.s3.amazonaws.com/challenges/2018",
        (
            _LESIONS,
            *(f"{_TASK}_{part}_{what}.zip" for part in _PARTS for what in ("GroundTruth", "Input")),
        ),
    ),
)
