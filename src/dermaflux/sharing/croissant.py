"""Croissant metadata of a folder of shards, built and checked by MLCommons' own library.

The format: https://docs.mlcommons.org/croissant/docs/croissant-spec.html and, for what is said
about responsible use, https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html. Needs the
extra `croissant`.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dermaflux.core import table
from dermaflux.core.files import write_json
from dermaflux.errors import InputError

FILE = "croissant.json"
_SPECIFICATIONS = (
    "http://mlcommons.org/croissant/1.0",
    "http://mlcommons.org/croissant/RAI/1.0",
)
_COLUMNS = {
    "image": "the image, encoded as JPEG or PNG",
    "image_id": "source/name, unique in the table",
    "source": "dataset that the image comes from",
    "licence": "of this image, as its publisher states it",
    "modality": "dermoscopic or clinical photograph",
    "label": "benign or malignant",
    "diagnosis": "in the words of the source",
    "patient_id": "pseudonym that the source published; null where it published none",
    "lesion_id": "of images of one lesion; null where the source names none",
    "skin_tone": "as published, or estimated from the image",
    "skin_tone_origin": "which of the two",
    "width": "in pixels, as published",
    "height": "in pixels, as published",
    "scale": "shorter side here, in pixels",
    "split": "train, validation or test",
    "sha256": "of the encoded image",
    "phash": "perceptual hash",
    "duplicate_group": "shared by copies of one image",
    "generator": "null for a real image",
    "prompt": "null for a real image",
    "seed": "of the noise of a synthetic image",
    "steps": "of the sampler of a synthetic image",
    "guidance": "strength of the prompt of a synthetic image",
    "weights": "SHA-256 of the generator's weights",
    "sampler_settings": "JSON from which the generator makes the image again",
    "batch": "number of the sampling batch, for a bit-identical image",
    "uncertainty": "of the selector about the image, from 0 (sure) to 1 (undecided)",
    "candidates": "sampled for each image kept",
    "selector": "SHA-256 of the selector",
}


@dataclass(frozen=True)
class About:
    """What the metadata say beside files and columns."""

    name: str
    description: str
    licences: Sequence[str]
    cite_as: str
    collection: str
    """How the data came about."""
    limitations: Sequence[str]
    url: str | None = None
    """Of the repository that it is pushed to."""


def require() -> Any:
    """The library; raises `InputError` when the extra is not installed."""
    try:
        import mlcroissant
    except ImportError:
        raise InputError(
            "Croissant metadata need mlcroissant; run `pip install 'dermaflux[croissant]'`"
        ) from None
    return mlcroissant


def write(folder: Path, shards: str, about: About, published: datetime.date) -> None:
    """Write croissant.json at the top of `folder`, for the shards in its sub-folder `shards`.

    Raises `InputError` when the library finds the metadata invalid.
    """
    mlc = require()
    paths = table.shards(folder / shards)
    try:
        content = _metadata(mlc, folder, paths, about, published)
    except mlc.ValidationError as error:
        raise InputError(f"{folder / FILE} would not be valid ({error}); correct it") from None
    write_json(folder / FILE, content.to_json())


def _metadata(
    mlc: Any, folder: Path, paths: Sequence[Path], about: About, published: datetime.date
) -> Any:
    context = mlc.Context()
    files = [
        mlc.FileObject(
            ctx=context,
            id=path.name,
            name=path.name,
            content_url=path.relative_to(folder).as_posix(),
            content_size=f"{path.stat().st_size} B",
            encoding_formats=[mlc.EncodingFormat.PARQUET],
            sha256=_sha256(path),
        )
        for path in paths
    ]
    shards = mlc.FileSet(
        ctx=context,
        id="shards",
        name="shards",
        description="All shards: one table.",
        encoding_formats=[mlc.EncodingFormat.PARQUET],
        includes=[f"{paths[0].parent.relative_to(folder).as_posix()}/*.parquet"],
    )
    images = mlc.RecordSet(
        ctx=context,
        id="images",
        name="images",
        description="One record per image.",
        key="images/image_id",
        fields=[_field(mlc, context, column) for column in pq.read_schema(paths[0])],
    )
    return mlc.Metadata(
        ctx=context,
        conforms_to=list(_SPECIFICATIONS),
        name=about.name,
        description=about.description,
        license=list(about.licences),
        cite_as=about.cite_as,
        url=about.url,
        version="1.0.0",
        date_published=datetime.datetime.combine(published, datetime.time()),
        keywords=["dermatology", "skin lesion", "melanoma", "image classification"],
        distribution=[*files, shards],
        record_sets=[images],
        data_collection=about.collection,
        data_limitations=list(about.limitations),
        data_use_cases=["Research on synthetic training images. Not for clinical use."],
        personal_sensitive_information=["Images of skin; pseudonyms that their sources published."],
    )


def _field(mlc: Any, context: Any, column: pa.Field) -> Any:
    if pa.types.is_struct(column.type):
        kind = mlc.DataType.IMAGE_OBJECT
    elif pa.types.is_integer(column.type):
        kind = mlc.DataType.INTEGER
    else:
        kind = mlc.DataType.FLOAT if pa.types.is_floating(column.type) else mlc.DataType.TEXT
    # An image is stored as a struct of its bytes and the name of its file.
    into = [mlc.Transform(ctx=context, json_path="bytes")] if column.name == "image" else []
    extract = mlc.Extract(ctx=context, column=column.name)
    return mlc.Field(
        ctx=context,
        id=f"images/{column.name}",
        name=column.name,
        description=_COLUMNS[column.name],
        data_types=[kind],
        source=mlc.Source(ctx=context, file_set="shards", extract=extract, transforms=into),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
