"""Rows of the caption table: text by the chosen captioner beside what was measured.

Reads and writes nothing.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dermaflux.captions.text.prompt_bank import held_out
from dermaflux.captions.text.quality import faults
from dermaflux.captions.vlm.prompts import training_caption
from dermaflux.core.hashing import sha256
from dermaflux.core.images import decode_image
from dermaflux.params import Caption

if TYPE_CHECKING:
    import pandas as pd

    from dermaflux.captions.vlm.client import Vision

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
_OPENING = 80  # characters in which a caption names its class, if it does
_CHUNK = 32  # images per task: enough to hide the cost of handing them over

Row = dict[str, Any]


def rows_of(
    section: Caption,
    known: pd.DataFrame,
    images: Sequence[bytes | None],
    vision: Vision | None = None,
    texts: dict[str, str] | None = None,
    advance: Callable[[int], None] = lambda images: None,
    jobs: int = -1,
) -> list[Row]:
    """Rows of `SCHEMA` for some images, in order; the number of worker processes changes none.

    `known` has the columns image_id, label and modality, `images` the encoded pictures of its rows;
    `vision` is asked by the captioners that need one, `texts` are the imported captions by id.
    """
    from dermaflux.captions.text.label import label_sentence

    captioner = section.captioner
    pairs = list(zip(known["image_id"], known["label"], strict=True))
    if captioner == "label":
        rows = [_row(name, label, label_sentence(label), captioner) for name, label in pairs]
        advance(len(rows))
        return [row | {"held_out": False} for row in rows]
    # Worker processes measure while the model is asked.
    with _measuring(pairs, images, jobs) as measured:
        if captioner == "measured":
            rows = []
            for row in measured:
                rows.append(row)
                advance(1)
        elif captioner == "imported":
            rows = _imported_rows(pairs, measured, texts or {})
            advance(len(rows))
        else:
            assert vision is not None
            found = _described(section, known, images, vision, advance)
            rows = [
                row | text | {"captioner": captioner}
                for row, text in zip(measured, found, strict=True)
            ]
    return [row | {"held_out": held_out(row["caption"], section.held_out_fraction)} for row in rows]


def _imported_rows(
    pairs: Sequence[tuple[str, str]], measured: Iterator[Row], texts: dict[str, str]
) -> list[Row]:
    """Captions as they were written; an image without one gets the label sentence and a flag."""
    rows = []
    for (name, label), row in zip(pairs, measured, strict=True):
        text = texts.get(name, "")
        flags = faults(text, label)
        # The generator must be told the class, which released captions leave to the label.
        named = label in text[:_OPENING].lower()
        written = {"caption": text if named else training_caption(label, text)}
        rows.append(row | written | {"captioner": "imported", "flags": ",".join(flags) or None})
    return rows


def _described(
    section: Caption,
    known: pd.DataFrame,
    images: Sequence[bytes | None],
    vision: Vision,
    advance: Callable[[int], None],
) -> list[Row]:
    """Caption, flags and tokens by the model."""
    from dermaflux.captions.vlm.captioner import Lesion, describe
    from dermaflux.captions.vlm.visual_attributes import Subject

    lesions = [
        Lesion(
            image_id,
            label,
            Subject(sha256(encoded), encoded, str(modality)),
        )
        for image_id, label, modality, encoded in zip(
            known["image_id"], known["label"], known["modality"], images, strict=True
        )
        if encoded is not None
    ]
    chain: Any = section.captioner
    return [
        {
            "caption": training_caption(one.label, found.text),
            "flags": ",".join(found.flags) or None,
            "prompt_tokens": found.prompt_tokens,
            "completion_tokens": found.completion_tokens,
        }
        for one, found in zip(lesions, describe(vision, chain, lesions, advance), strict=True)
    ]


@contextmanager
def _measuring(
    pairs: Sequence[tuple[str, str]], images: Sequence[bytes | None], jobs: int
) -> Iterator[Iterator[Row]]:
    """Rows of the captioner `measured`; the work starts before the first one is asked for."""
    import joblib

    triples = [(name, label, encoded) for (name, label), encoded in zip(pairs, images, strict=True)]
    tasks = (
        joblib.delayed(_measured)(triples[start : start + _CHUNK])
        for start in range(0, len(triples), _CHUNK)
    )
    done = joblib.Parallel(n_jobs=jobs, return_as="generator")(tasks)
    try:
        yield itertools.chain.from_iterable(done)
    finally:
        with warnings.catch_warnings():  # that work was in vain, after an error said elsewhere
            warnings.simplefilter("ignore", UserWarning)
            done.close()


def _measured(images: Sequence[tuple[str, str, bytes]]) -> list[Row]:
    """Rows of (image_id, label, encoded image) triples."""
    import numpy as np
    from threadpoolctl import threadpool_limits

    from dermaflux.captions.lesion.measured import describe, measure

    out = []
    # One BLAS thread: sums then add up in the same order whatever the number of workers.
    with threadpool_limits(limits=1):
        for image_id, label, encoded in images:
            found = measure(np.asarray(decode_image(encoded)))
            row = _row(image_id, label, describe(found, label, image_id), "measured")
            row |= {
                "asymmetry": found.asymmetry,
                "border_irregularity": found.border_irregularity,
                "colours": None if found.colours is None else len(found.colours),
                "diameter_fraction": found.diameter_fraction,
            }
            out.append(row)
    return out


def _row(image_id: str, label: str, caption: str, captioner: str) -> Row:
    return {"image_id": image_id, "caption": caption, "captioner": captioner, "label": label}
