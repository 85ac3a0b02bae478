"""One synthetic image sampled again from its manifest row: `dermaflux reproduce IMAGE_ID`.

Reads synthetic/, models/generator/ and models/backbone/; writes the PNG it is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
from pydantic import ValidationError

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.arrays import Pixels
from dermaflux.core.files import reading
from dermaflux.core.images import decode_image, encode_png
from dermaflux.errors import InputError, quoted
from dermaflux.generators import registry
from dermaflux.generators.protocol import Collection, Condition, Json, Models
from dermaflux.params.choices import GENERATORS, generator_schema
from dermaflux.params.fields import Scale

_STAGE = "the stage synthesize"


def reproduce(image_id: str, output: Path, alone: bool = False) -> None:
    """Sample the image again, write a PNG, say how equal it is."""
    models = Models(paths.GENERATOR, paths.BACKBONE)
    again, stored = sample_again(image_id, paths.SYNTHETIC, models, alone)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(encode_png(again))
    difference = int(np.abs(again.astype(int) - stored.astype(int)).max())
    how = "alone" if alone else "in its batch"
    verdict = (
        "bit-identical to" if difference == 0 else f"within {difference} of 255 grey levels of"
    )
    print(f"{image_id} sampled {how} is {verdict} the one in {paths.SYNTHETIC}: {output}")


def sample_again(
    image_id: str, synthetic: Path, models: Models, alone: bool = False
) -> tuple[Pixels, Pixels]:
    """(image sampled again, image in the shard), each uint8 (H, W, 3).

    Raises `InputError` for an unknown image or when the generator's weights are not the row's.
    """
    rows = table.metadata(synthetic)
    match = rows[rows["image_id"] == image_id]
    if match.empty:
        raise InputError(
            f"{quoted(image_id)} is not in {synthetic}, whose images are "
            f"{quoted(rows['image_id'].iloc[0])} to {quoted(rows['image_id'].iloc[-1])}; name one "
            "of those"
        )
    row = match.iloc[0]
    if row["generator"] not in GENERATORS:
        raise InputError(
            f"{quoted(image_id)} comes from the generator {quoted(row['generator'])}, which this "
            "version does not have; check out the revision that made it"
        )
    generator = registry.generator(row["generator"])
    if isinstance(generator, Collection):
        raise InputError(
            f"{quoted(image_id)} is a released image, which carries no prompt and no seed; name "
            "an image that was sampled here"
        )
    weights = generator.weights_id(models)
    if weights != row["weights"]:
        raise InputError(
            f"{quoted(image_id)} was made with weights {quoted(str(row['weights'])[:12])} but "
            f"{models.generator} holds {weights[:12]!r}; check out the revision that made it "
            "(`dvc checkout`)"
        )
    if not alone:
        # Of a chosen pool, most images of a batch were not kept.
        everything = table.candidates(synthetic)
        rows = table.metadata(everything) if everything.is_dir() else rows
    members = match if alone else rows[rows["batch"] == row["batch"]].sort_values("image_id")
    with reading(synthetic, _STAGE):
        settings = _settings(str(row["generator"]), row["sampler_settings"])
        conditions = [_condition(member) for member in members.to_dict("records")]
        stored = np.asarray(decode_image(dict(table.images(synthetic, [image_id]))[image_id]))
        index = members["image_id"].tolist().index(image_id)
        sampler = generator.open(models, settings)
    return sampler(conditions)[index], stored


def _settings(generator: str, text: object) -> Mapping[str, Json]:
    """Settings of a row, those that params.yaml has within its limits; else `ValueError`."""
    settings = json.loads(text) if isinstance(text, str) else None
    if not isinstance(settings, dict):
        raise ValueError(f"sampler_settings of a row is {quoted(text)}, not a JSON object")
    schema = generator_schema(generator, "Synthesize")
    known = {name: settings[name] for name in schema.model_fields if name in settings}
    try:
        schema.model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        problem = f"{name} is {quoted(first['input'])}: {first['msg']}"
        raise ValueError(f"in sampler_settings of a row, {problem}") from None
    return settings


def _condition(row: Mapping[Any, Any]) -> Condition:
    """What a row shows; `ValueError` for values with which nothing can be sampled."""
    name, scale, seed = quoted(row["image_id"]), int(row["scale"]), int(row["seed"])
    for column in ("label", "prompt"):
        if not isinstance(row[column], str):
            raise ValueError(f"{name} has no {column}")
    if scale not in get_args(Scale) or seed < 0:
        raise ValueError(
            f"{name} has scale {scale} and seed {seed}, where the scale is one of "
            f"{get_args(Scale)} and the seed 0 or more"
        )
    diagnosis = row["diagnosis"] if isinstance(row["diagnosis"], str) else None
    return Condition(row["label"], row["prompt"], scale, seed, diagnosis)
