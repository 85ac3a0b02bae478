"""Columns of the table, and how it is stored: the contract that `validate` checks."""

from __future__ import annotations

import json

import pyarrow as pa

SPLITS = ("train", "validation", "test")
SCALES = (128, 256, 512)

_FEATURES: dict[str, dict[str, str]] = {
    "image": {"_type": "Image"},
    **{
        name: {"dtype": "string", "_type": "Value"}
        for name in (
            "image_id",
            "source",
            "licence",
            "modality",
            "label",
            "diagnosis",
            "patient_id",
            "lesion_id",
            "skin_tone",
            "skin_tone_origin",
        )
    },
    "width": {"dtype": "int32", "_type": "Value"},
    "height": {"dtype": "int32", "_type": "Value"},
    "scale": {"dtype": "int32", "_type": "Value"},
    "split": {"dtype": "string", "_type": "Value"},
    "sha256": {"dtype": "string", "_type": "Value"},
    "phash": {"dtype": "string", "_type": "Value"},
    "duplicate_group": {"dtype": "string", "_type": "Value"},
    "generator": {"dtype": "string", "_type": "Value"},
    "prompt": {"dtype": "string", "_type": "Value"},
    "seed": {"dtype": "int64", "_type": "Value"},
    "steps": {"dtype": "int32", "_type": "Value"},
    "guidance": {"dtype": "float32", "_type": "Value"},
    "weights": {"dtype": "string", "_type": "Value"},
    "sampler_settings": {"dtype": "string", "_type": "Value"},
    "batch": {"dtype": "int32", "_type": "Value"},
}
"""Column -> Hugging Face feature. The last eight are null in real rows. `sampler_settings` is the
JSON object from which the generator opens its sampler again; `steps` and `guidance` repeat its
values where it has them. `batch` is the number of the sampling batch, which the bit-identical
re-run of a synthetic image needs."""

COLUMNS = tuple(_FEATURES)
METADATA = tuple(name for name in COLUMNS if name != "image")

_CHOICE: dict[str, dict[str, str]] = {
    "uncertainty": {"dtype": "float64", "_type": "Value"},
    "candidates": {"dtype": "int32", "_type": "Value"},
    "selector": {"dtype": "string", "_type": "Value"},
}
"""Further columns of a pool that was chosen from candidates: how unsure the selector is of the
image, from 0 (sure) to 1 (undecided), candidates for each image kept, and the SHA-256 of the
selector. Other tables do not have them."""

_ARROW = {
    "string": pa.string(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
}
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def _schema(features: dict[str, dict[str, str]]) -> pa.Schema:
    """Arrow types of the features, which the metadata names for Hugging Face."""
    return pa.schema(
        [
            (name, _IMAGE if feature["_type"] == "Image" else _ARROW[feature["dtype"]])
            for name, feature in features.items()
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )


SCHEMA = _schema(_FEATURES)
CHOSEN_SCHEMA = _schema(_FEATURES | _CHOICE)
CHOICE = tuple(_CHOICE)
