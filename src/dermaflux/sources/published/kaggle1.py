"""Kaggle 1, "Melanoma Skin Cancer Dataset of 10000 Images": class folders, 300 x 300 pixels.

Reads ``melanoma_cancer_dataset/{train,test}/{benign,malignant}``. Files of both classes are called
``melanoma_<n>.jpg``, so the label comes from the folder and the path is the id.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dermaflux.core.vocabulary import CLASSES
from dermaflux.sources.adapter import SPLITS, Counts, KaggleDataset, Record, Source
from dermaflux.sources.reading.folders import class_folders, unwrapped

_WRAPPER = "melanoma_cancer_dataset"


def read(root: Path) -> Iterator[Record]:
    """Records of the published training and test folders."""
    inner = unwrapped(root / _WRAPPER, lambda folder: any((folder / s).is_dir() for s in SPLITS))
    for split in SPLITS:
        labels = {f"{split}/{label}": label for label in CLASSES}
        yield from class_folders(inner, labels, split)


SOURCE = Source(
    name="kaggle1",
    title="Melanoma Skin Cancer Dataset of 10000 Images",
    licence="CC0",
    modality="dermoscopic",
    citation="Javid 2022 (10.34740/KAGGLE/DSV/3376422)",
    url="https://www.kaggle.com/datasets/hasnainjaved/melanoma-skin-cancer-dataset-of-10000-images",
    published_scale=256,
    markers=(_WRAPPER,),
    claims=(_WRAPPER,),
    read=read,
    counts={"train": Counts(9_605, 5_000, 4_605), "test": Counts(1_000, 500, 500)},
    mapping="folder, as published",
    access="login",
    download=KaggleDataset("hasnainjaved/melanoma-skin-cancer-dataset-of-10000-images"),
)
