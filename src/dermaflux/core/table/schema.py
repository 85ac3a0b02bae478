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

_ARROW = {"string": pa.string(), "int32": pa.int32(), "int64": pa.int64(), "float32": pa.float32()}
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SCHEMA = pa.schema(
    [
        (name, _IMAGE if feature["_type"] == "Image" else _ARROW[feature["dtype"]])
        for name, feature in _FEATURES.items()
    ],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)
