"""The two Kaggle layouts: class folders, official splits, no ISIC ids, no CSV.

Kaggle 2 holds most of Kaggle 1 at another size, test images included, and both hold images of the
ISIC challenges: the published overlaps that only content can reveal.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from dermaflux.core.vocabulary import CLASSES
from dermaflux.phantom.layout import Damage, Layout, PlannedImage, lesion_of
from dermaflux.phantom.lesion import RandomIntegers

_KAGGLE1 = {
    ("train", "benign"): 155,
    ("train", "malignant"): 76,
    ("test", "benign"): 60,
    ("test", "malignant"): 60,
}
_KAGGLE2 = {
    ("train", "benign"): 130,
    ("train", "malignant"): 66,
    ("test", "benign"): 85,
    ("test", "malignant"): 85,
}


def _usable(images: Sequence[PlannedImage], split: str, label: str) -> list[PlannedImage]:
    """Intact square images that pass the resolution filter, so that a copy shows all of them."""
    return [
        p
        for p in images
        if (p.split, p.label) == (split, label) and not p.damage and p.size[0] == p.size[1] >= 128
    ]


def kaggle1(isic2020: Layout) -> Layout:
    """300 x 300; benign files are called melanoma too; eight images of ISIC 2020; one cut short."""
    layout, number = Layout(), count()
    borrowed = _usable(isic2020.images, "train", "benign")[3:91:11]
    for (split, label), total in _KAGGLE1.items():
        folder = f"kaggle1/melanoma_cancer_dataset/{split}/{label}"
        for index in range(total):
            serial = next(number)
            path = f"{folder}/melanoma_{serial}.jpg"
            if (split, label) == ("train", "benign") and index % 18 == 5 and borrowed:
                original = borrowed.pop(0)
                twin = PlannedImage(path, original.lesion, (300, 300), split, label, 82)
                layout.copy("across sources", original, twin)
                continue
            lesion = lesion_of("kaggle1", serial, label)
            cut = (split, label, index) == ("train", "benign", 40)
            damage: Damage = "truncated" if cut else ""
            layout.images.append(PlannedImage(path, lesion, (300, 300), split, label, 82, damage))
    return layout


def kaggle2(kaggle1: Layout, isic2019: Layout) -> Layout:
    """224 x 224; capitalised folders; parts of Kaggle 1, also of its test split; a text file."""
    layout, rng = Layout(), RandomIntegers("layout", "kaggle2")
    numbers = iter(rng.shuffled(range(1, 600)))

    def path(split: str, label: str) -> str:
        return f"kaggle2/{split}/{label.capitalize()}/{next(numbers)}.jpg"

    for (split, label), total in _KAGGLE2.items():
        for _ in range(total):
            lesion = lesion_of("kaggle2", len(layout.images), label)
            layout.images.append(
                PlannedImage(path(split, label), lesion, (224, 224), split, label, 85)
            )
    overlaps = (
        ("across sources", kaggle1, "train", "train", 11),
        ("train and test", kaggle1, "test", "train", 4),
        ("train and test", kaggle1, "train", "test", 3),
        ("train and test", isic2019, "test", "train", 2),
    )
    for kind, other, theirs, ours, each in overlaps:
        for label in CLASSES:
            originals = _usable(other.images, theirs, label)
            taken = {first for _, first, _ in layout.duplicates}
            free = [p for p in originals if p.path not in taken]
            for original in free[1 : 1 + 3 * each : 3]:
                twin = PlannedImage(path(ours, label), original.lesion, (224, 224), ours, label, 78)
                layout.copy(kind, original, twin)
    layout.images.append(
        PlannedImage(
            path("train", "benign"),
            lesion_of("kaggle2", 9000, "benign"),
            (224, 224),
            "train",
            "benign",
            damage="not an image",
        )
    )
    return layout
