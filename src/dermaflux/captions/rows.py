"""Rows of the caption table: text by the chosen captioner beside the measurements.

Reads and writes nothing.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dermaflux.captions.text.label import label_sentence
from dermaflux.captions.text.prompt_bank import held_out
from dermaflux.captions.text.quality import faults
from dermaflux.captions.vlm.prompts import training_caption
from dermaflux.core.hashing import sha256
from dermaflux.core.images import decode_image
from dermaflux.launch import worker_options
from dermaflux.params import Caption

if TYPE_CHECKING:
    import pandas as pd

    from dermaflux.captions.vlm.client import VLM

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("caption", pa.string()),
        ("captioner", pa.string()),
        ("label", pa.string()),
        ("asymmetry", pa.float64()),
        ("border_irregularity", pa.float64()),
        ("colours", pa.int32()),
        ("diameter_fraction", pa.float64()),
        ("flags", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        ("held_out", pa.bool_()),
    ]
)
_CLASS_WITHIN = 80  # characters; a caption that names its class does so at the start
_CHUNK = 32  # images per task: enough to hide the cost of sending them to a process

Row = dict[str, Any]
Labelled = tuple[str, str]
"""image_id and label."""


def caption_rows(
    section: Caption,
    images: pd.DataFrame,
    encoded: Sequence[bytes | None],
    vlm: VLM | None = None,
    imported_texts: dict[str, str] | None = None,
    advance: Callable[[int], None] = lambda images: None,
    jobs: int = -1,
) -> list[Row]:
    """Rows of `SCHEMA`, in order; the number of worker processes does not change them.

    `images` has the columns image_id, label and modality, `encoded` the JPEG or PNG of each row;
    `vlm` serves the captioners that need a model, `imported_texts` are captions by image_id.
    """
    captioner = section.captioner
    labelled = list(zip(images["image_id"], images["label"], strict=True))
    if captioner == "label":
        rows = [
            _row(image_id, label, label_sentence(label), captioner) for image_id, label in labelled
        ]
        advance(len(rows))
        return [row | {"held_out": False} for row in rows]
    # Worker processes measure while the model generates.
    with _measuring(labelled, encoded, jobs) as measured:
        if captioner == "measured":
            rows = []
            for row in measured:
                rows.append(row)
                advance(1)
        elif captioner == "imported":
            rows = _imported_rows(labelled, measured, imported_texts or {})
            advance(len(rows))
        else:
            assert vlm is not None
            generated = _generated_columns(section, images, encoded, vlm, advance)
            rows = [
                row | columns | {"captioner": captioner}
                for row, columns in zip(measured, generated, strict=True)
            ]
    return [row | {"held_out": held_out(row["caption"], section.held_out_fraction)} for row in rows]


def _imported_rows(
    labelled: Sequence[Labelled], measured: Iterator[Row], texts: dict[str, str]
) -> list[Row]:
    """Captions as they were written; an image without one gets the label sentence and a flag."""
    rows = []
    for (image_id, label), row in zip(labelled, measured, strict=True):
        text = texts.get(image_id, "")
        flags = faults(text, label)
        # The generator has to learn the class, which released captions leave to the label.
        names_class = label in text[:_CLASS_WITHIN].lower()
        columns = {"caption": text if names_class else training_caption(label, text)}
        rows.append(row | columns | {"captioner": "imported", "flags": ",".join(flags) or None})
    return rows


def _generated_columns(
    section: Caption,
    images: pd.DataFrame,
    encoded: Sequence[bytes | None],
    vlm: VLM,
    advance: Callable[[int], None],
) -> list[Row]:
    """Caption, flags and tokens from the model."""
    from dermaflux.captions.vlm import questions
    from dermaflux.captions.vlm.captioner import describe
    from dermaflux.captions.vlm.client import LesionImage

    lesions = [
        LesionImage(content, sha256(content), label, str(modality))
        for label, modality, content in zip(
            images["label"], images["modality"], encoded, strict=True
        )
        if content is not None
    ]
    protocol: Any = section.captioner
    asked = questions.PUBLISHED
    if protocol == "visual_attributes":
        asked = questions.read(Path(section.questions))
    return [
        {
            "caption": training_caption(
                lesion.label, description.text, asked.class_sentence(lesion.label)
            ),
            "flags": ",".join(description.flags) or None,
            "prompt_tokens": description.prompt_tokens,
            "completion_tokens": description.completion_tokens,
        }
        for lesion, description in zip(
            lesions, describe(vlm, protocol, lesions, advance, asked), strict=True
        )
    ]


@contextmanager
def _measuring(
    labelled: Sequence[Labelled], encoded: Sequence[bytes | None], jobs: int
) -> Iterator[Iterator[Row]]:
    """Rows of the captioner `measured`; the work starts before the first row is taken."""
    import joblib

    triples = [
        (image_id, label, content)
        for (image_id, label), content in zip(labelled, encoded, strict=True)
    ]
    tasks = (
        joblib.delayed(_measured)(triples[start : start + _CHUNK])
        for start in range(0, len(triples), _CHUNK)
    )
    results = joblib.Parallel(n_jobs=jobs, return_as="generator", **worker_options())(tasks)
    try:
        yield itertools.chain.from_iterable(results)
    finally:
        with warnings.catch_warnings():  # joblib warns about unused results, after any other error
            warnings.simplefilter("ignore", UserWarning)
            results.close()


def _measured(triples: Sequence[tuple[str, str, bytes]]) -> list[Row]:
    """Rows of (image_id, label, encoded image) triples."""
    import numpy as np
    from threadpoolctl import threadpool_limits

    from dermaflux.captions.lesion.measured import measure
    from dermaflux.captions.text.description import describe

    rows = []
    # One BLAS thread: sums then add up in the same order whatever the number of workers.
    with threadpool_limits(limits=1):
        for image_id, label, encoded in triples:
            measurements = measure(np.asarray(decode_image(encoded)))
            row = _row(image_id, label, describe(measurements, label, image_id), "measured")
            colours = measurements.colours
            row |= {
                "asymmetry": measurements.asymmetry,
                "border_irregularity": measurements.border_irregularity,
                "colours": None if colours is None else len(colours),
                "diameter_fraction": measurements.diameter_fraction,
            }
            rows.append(row)
    return rows


def _row(image_id: str, label: str, caption: str, captioner: str) -> Row:
    return {"image_id": image_id, "caption": caption, "captioner": captioner, "label": label}
