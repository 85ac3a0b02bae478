"""Which diagnoses are classes where `train.labels` is `diagnosis`.

Pure functions on the metadata of the training and validation splits; the test split plays no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class DiagnosisClasses:
    """Classes, sorted by name, and the training images that belong to none."""

    classes: tuple[str, ...]
    rare: dict[str, int]
    """Diagnoses with too few training images -> their number."""
    unvalidated: dict[str, int]
    """Diagnoses without a validation image -> their number of training images."""
    unnamed: int
    """Training images without a diagnosis."""

    def __str__(self) -> str:
        others = {**self.rare, **self.unvalidated, "none given": self.unnamed}
        names = ", ".join(f"{name} ({count})" for name, count in sorted(others.items()) if count)
        classes = ", ".join(self.classes)
        return f"{len(self.classes)} diagnoses: {classes}; left out, training images: {names or 0}"


def choose(training: pd.DataFrame, validation: pd.DataFrame, minimum: int) -> DiagnosisClasses:
    """Diagnoses with at least `minimum` training images and one of validation.

    Both frames have a column `diagnosis`, as `ingest` harmonised it. Raises `InputError` when fewer
    than two are left, or when they are the two classes of labels malignancy.
    """
    available = training["diagnosis"].value_counts()
    validated = set(validation["diagnosis"].dropna())
    rare = {str(name): int(n) for name, n in available.items() if n < minimum}
    common = {str(name): int(n) for name, n in available.items() if n >= minimum}
    classes = tuple(sorted(name for name in common if name in validated))
    if len(classes) < 2:
        raise InputError(
            f"{len(classes)} of {len(available)} diagnoses have {minimum} training images and one "
            "of validation but labels 'diagnosis' needs 2; lower train.minimum_diagnosis_images "
            "or set train.labels to malignancy"
        )
    if classes == CLASSES:
        raise InputError(
            "the diagnoses of the corpus are benign and malignant; set train.labels to malignancy"
        )
    return DiagnosisClasses(
        classes,
        rare,
        {name: n for name, n in common.items() if name not in validated},
        int(training["diagnosis"].isna().sum()),
    )
