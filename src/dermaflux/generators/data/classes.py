"""Which class embedding an image gets. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError, quoted
from dermaflux.generators.protocol import Condition

MALIGNANCY = "malignancy"


def trained_classes(
    generator: str, condition: str, diagnoses: Sequence[str | None]
) -> tuple[str, ...]:
    """Classes that get an embedding, in order, given the diagnoses of the training images.

    Raises `InputError` when classes are diagnoses and no image has one.
    """
    if condition == MALIGNANCY:
        return CLASSES
    known = tuple(sorted({diagnosis for diagnosis in diagnoses if diagnosis is not None}))
    if not known:
        raise InputError(
            f"none of the {len(diagnoses):,} training images has a diagnosis; set "
            f"finetune.{generator}.condition to malignancy, or add a source with diagnoses"
        )
    return known


def embedding(
    classes: Sequence[str], condition: str, label: str, diagnosis: str | None
) -> int | None:
    """Index of the embedding; `len(classes)`, that of no class, where nothing is known or asked.

    None for a class without an embedding.
    """
    if label == "indeterminate":
        return len(classes)
    name = label if condition == MALIGNANCY else diagnosis
    if name is None:
        return len(classes)
    return classes.index(name) if name in classes else None


def requested(generator: str, classes: Sequence[str], condition: str, wanted: Condition) -> int:
    """Index of the embedding for sampling; raises `InputError` for what was not trained."""
    if wanted.label != "indeterminate":
        if condition == MALIGNANCY and wanted.diagnosis is not None:
            raise InputError(
                f"an image of {quoted(wanted.diagnosis)} is asked for but the generator was "
                "trained on malignancy alone; set synthesize.conditions to malignancy, or "
                f"finetune.{generator}.condition to diagnosis"
            )
        if condition != MALIGNANCY and wanted.diagnosis is None:
            raise InputError(
                f"a {wanted.label} image is asked for without a diagnosis but the generator was "
                "trained on diagnoses; set synthesize.conditions to diagnosis, or "
                f"finetune.{generator}.condition to malignancy"
            )
    index = embedding(classes, condition, wanted.label, wanted.diagnosis)
    if index is None:
        asked = wanted.label if condition == MALIGNANCY else wanted.diagnosis
        raise InputError(
            f"an image of {quoted(asked)} is asked for but no training image showed it; the "
            f"generator knows {', '.join(classes)}"
        )
    return index
