"""Stage `caption`: one caption per image of the corpus, by the chosen captioner.

Reads corpus/, writes captions/captions-00000-of-00001.parquet. Run with `dermaflux caption`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from dermaflux import paths, table
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.progress import progress

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
_CHUNK = 32  # images per task: enough to hide the cost of handing them over


def run(params: Params) -> None:
    """Caption the corpus; raise `InputError` when the captioner is not built."""
    captioner = params.caption.captioner
    if captioner not in ("measured", "label"):
        raise InputError(
            f"caption.captioner is {captioner!r}, which is not built yet; use 'measured' or 'label'"
        )
    known = table.metadata(paths.CORPUS, ["image_id", "label"])
    labels = dict(zip(known["image_id"], known["label"], strict=True))
    with (
        table.atomic_folder(paths.CAPTIONS) as partial,
        progress("caption", len(labels)) as advance,
    ):
        writer = table.ShardWriter(partial, "captions", 64, SCHEMA)
        for row in rows(paths.CORPUS, labels, captioner):
            writer.add(row)
            advance(1)
        writer.close()


def rows(
    corpus: Path, labels: dict[str, str], captioner: str, jobs: int = -1
) -> Iterator[dict[str, Any]]:
    """Rows of `SCHEMA` in corpus order; the number of worker processes does not change them."""
    if captioner == "label":
        from dermaflux.captions.measured import label_sentence

        for image_id, label in labels.items():
            yield _row(image_id, label, label_sentence(label), captioner)
        return
    import joblib

    tasks = (
        joblib.delayed(_measured)([(name, labels[name], encoded) for name, encoded in chunk])
        for chunk in _batched(table.images(corpus), _CHUNK)
    )
    for done in joblib.Parallel(n_jobs=jobs, return_as="generator")(tasks):
        yield from done


def _batched(values: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    # itertools.batched came with Python 3.12.
    iterator = iter(values)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch


def _measured(images: list[tuple[str, str, bytes]]) -> list[dict[str, Any]]:
    """Rows of (image_id, label, encoded image) triples."""
    import numpy as np
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    from dermaflux.captions.measured import describe, measure

    out = []
    # One BLAS thread: sums then add up in the same order whatever the number of workers.
    with threadpool_limits(limits=1):
        for image_id, label, encoded in images:
            found = measure(np.asarray(table.decode(encoded)))
            row = _row(image_id, label, describe(found, label, image_id), "measured")
            row |= {
                "asymmetry": found.asymmetry,
                "border_irregularity": found.border_irregularity,
                "colours": None if found.colours is None else len(found.colours),
                "diameter_fraction": found.diameter_fraction,
            }
            out.append(row)
    return out


def _row(image_id: str, label: str, caption: str, captioner: str) -> dict[str, Any]:
    return {"image_id": image_id, "caption": caption, "captioner": captioner, "label": label}
