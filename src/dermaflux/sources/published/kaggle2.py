"""Kaggle 2, "Melanoma Cancer Image Dataset": capitalised class folders, 224 x 224 pixels.

Reads ``{train,test}/{Benign,Malignant}``. It very likely holds Kaggle 1, test images included
(counts of both datasets), which is why duplicates are searched across datasets.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dermaflux.core.vocabulary import CLASSES
from dermaflux.sources.adapter import SPLITS, Counts, KaggleDataset, Record, Source
from dermaflux.sources.reading.folders import class_folders


def read(root: Path) -> Iterator[Record]:
    """Records of the published training and test folders."""
    for split in SPLITS:
        labels = {f"{split}/{label.capitalize()}": label for label in CLASSES}
        yield from class_folders(root, labels, split)


SOURCE = Source(
    name="kaggle2",
    title="Melanoma Cancer Image Dataset",
    licence="CC0",
    modality="dermoscopic",
    citation="Mittal, Melanoma Cancer Image Dataset, Kaggle",
    url="https://www.kaggle.com/datasets/bhaveshmittal/melanoma-cancer-dataset",
    published_scale=256,
    markers=("train/Benign", "train/Malignant", "test/Benign", "test/Malignant"),
    claims=("train", "test"),
    read=read,
    counts={"train": Counts(11_879, 6_289, 5_590), "test": Counts(2_000, 1_000, 1_000)},
    mapping="folder, as published",
    access="login",
    download=KaggleDataset("bhaveshmittal/melanoma-cancer-dataset"),
)
