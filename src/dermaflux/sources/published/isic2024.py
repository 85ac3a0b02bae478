"""ISIC 2024 (SLICE-3D): small square tiles cut out of total-body photographs.

Reads one of four layouts: Kaggle's ``train-metadata.csv`` with ``train-image/image/*.jpg`` or with
``train-image.hdf5``; the challenge site's ``ISIC_2024_Training_{Input,GroundTruth,Supplement}``;
isic-cli's folder (collection 390). Most benign tiles were never biopsied, and few have a lesion id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from dermaflux.core import vocabulary
from dermaflux.core.file_names import image_key
from dermaflux.core.vocabulary import is_placeholder
from dermaflux.sources.adapter import Counts, Facts, OpenFiles, Problem, Record, Source
from dermaflux.sources.reading import archive, hdf5
from dermaflux.sources.reading.files import ImageFile, by_stem, has_images, image_files, join
from dermaflux.sources.reading.folders import nested_image_files, unwrapped
from dermaflux.sources.reading.tables import (
    OptionalValues,
    Row,
    bad_value,
    licence_of,
    read_csv,
    stated,
    truth_value,
)

_KAGGLE = "train-metadata.csv"
_KAGGLE_IMAGES = "train-image"
_HDF5 = "train-image.hdf5"
_SITE = "ISIC_2024_Training"
_ABOUT = ("patient_id", "lesion_id", "copyright_license", "iddx_1", "iddx_full")


def _facts(row: Row, target: str, about: Row) -> Facts:
    """Facts of a tile: `row` holds its target, `about` the columns `_ABOUT`, often the same row."""
    flag = truth_value(row.values[target])
    if flag is None:
        return Facts(problem=bad_value(row, target, "it must be 0 or 1"))
    verdict, problem = stated(about, "iddx_1").lower(), None
    label = "malignant" if flag else "benign"
    if verdict == "indeterminate" and not flag:
        label = verdict  # 114 tiles that the target calls 0
    elif verdict and verdict != label:
        reason = f"{row.location} has {target} = {row.values[target]} but iddx_1 = {verdict}"
        problem = Problem("contradiction", f"{reason}; correct it")
    optional = OptionalValues()
    licence, unknown = licence_of(about, "copyright_license", optional)
    return Facts(
        label=label,
        diagnosis=_diagnosis(about.values["iddx_full"]),
        patient_id=optional.read(about, "patient_id", vocabulary.identifier),
        lesion_id=optional.read(about, "lesion_id", vocabulary.identifier),
        licence=licence,
        problem=problem or unknown,
        unread=tuple(optional.unread),
    )


def _diagnosis(full: str) -> str | None:
    """The finest step of ``Malignant::Malignant melanocytic proliferations::Melanoma``."""
    steps = full.split("::")
    return vocabulary.diagnosis(steps[-1]) if len(steps) > 1 else None


def _kaggle(root: Path) -> Iterator[Record]:
    rows = read_csv(root / _KAGGLE, ("isic_id", "target"), _ABOUT)
    folder = root / _KAGGLE_IMAGES
    paths = nested_image_files(folder / "image") or nested_image_files(folder)
    images: Iterable[ImageFile] = by_stem(paths)
    if not paths and (root / _HDF5).is_file():
        archive_path = root / _HDF5
        images = (ImageFile(key, archive_path, key) for key in hdf5.members(archive_path))
    yield from join(images, rows, "isic_id", lambda row: _facts(row, "target", row), "train")


def _challenge_site(root: Path) -> Iterator[Record]:
    truth = read_csv(root / f"{_SITE}_GroundTruth.csv", ("isic_id", "malignant"))
    folder = root / f"{_SITE}_Input"
    inner = unwrapped(folder, has_images)
    about: dict[str, Row] = {}
    tables = (inner / archive.METADATA, folder / archive.METADATA, root / f"{_SITE}_Supplement.csv")
    for path in dict.fromkeys(tables):
        for row in read_csv(path, ("isic_id",), _ABOUT) if path.is_file() else ():
            known = about.setdefault(image_key(row.values["isic_id"]), row)
            known.values.update({n: v for n, v in row.values.items() if not is_placeholder(v)})
    nothing = Row("", dict.fromkeys(_ABOUT, ""))
    yield from join(
        by_stem(image_files(inner)),
        truth,
        "isic_id",
        lambda row: _facts(row, "malignant", about.get(image_key(row.values["isic_id"]), nothing)),
        "train",
    )


def read(root: Path) -> Iterator[Record]:
    """Records of whichever layout is there, Kaggle's first."""
    if (root / _KAGGLE).is_file():
        return _kaggle(root)
    return archive.read(root) if archive.is_layout(root) else _challenge_site(root)


SOURCE = Source(
    name="isic2024",
    title="ISIC 2024 (SLICE-3D)",
    licence="CC-BY-NC",
    modality="tile",
    citation="Kurtansky et al. 2024 (10.1038/s41597-024-03743-w)",
    url="https://challenge.isic-archive.com/data/#2024",
    published_scale=128,
    markers=(_KAGGLE, f"{_SITE}_GroundTruth.csv", f"{_SITE}_Input"),
    shared_markers=(archive.METADATA,),
    claims=(
        *(_KAGGLE, _KAGGLE_IMAGES, _HDF5),
        *(f"{_SITE}_Input", f"{_SITE}_GroundTruth.csv", f"{_SITE}_Supplement.csv"),
    ),
    read=read,
    counts={"train": Counts(401_059, 400_552, 393, 114)},
    mapping="target; iddx_1 = Indeterminate is indeterminate (Kurtansky et al. 2024)",
    bytes=1_200_000_000,
    # As a collection (390) these are 401,059 downloads instead of one.
    download=OpenFiles(
        "https://isic-archive.s3.amazonaws.com/challenges/2024",
        tuple(f"{_SITE}_{file}" for file in ("GroundTruth.csv", "Supplement.csv", "Input.zip")),
    ),
)
