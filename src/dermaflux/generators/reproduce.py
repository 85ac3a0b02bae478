"""One synthetic image sampled again from its manifest row: `dermaflux reproduce IMAGE_ID`.

Reads synthetic/, models/generator/ and models/backbone/; writes the PNG it is asked for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.arrays import Pixels
from dermaflux.core.files import reading
from dermaflux.core.images import decode_image, encode_png
from dermaflux.errors import InputError
from dermaflux.generators import registry
from dermaflux.generators.protocol import Collection, Condition, Models
from dermaflux.params.choices import GENERATORS


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
            f"{image_id} is not in {synthetic}; its images are {rows['image_id'].iloc[0]} to "
            f"{rows['image_id'].iloc[-1]}"
        )
    row = match.iloc[0]
    if row["generator"] not in GENERATORS:
        raise InputError(
            f"{image_id} comes from the generator {row['generator']!r}, which this version does "
            "not have; check out the revision that made it"
        )
    generator = registry.generator(row["generator"])
    if isinstance(generator, Collection):
        raise InputError(
            f"{image_id} is a released image, which carries no prompt and no seed; only images "
            "sampled here can be sampled again"
        )
    weights = generator.weights_id(models)
    if weights != row["weights"]:
        raise InputError(
            f"{image_id} was made with weights {row['weights'][:12]} but {models.generator} holds "
            f"{weights[:12]}; check out the revision that made it (`dvc checkout`)"
        )
    if not alone:
        # Of a chosen pool, most images of a batch were not kept.
        everything = table.candidates(synthetic)
        rows = table.metadata(everything) if everything.is_dir() else rows
    members = match if alone else rows[rows["batch"] == row["batch"]].sort_values("image_id")
    with reading(synthetic, "the stage synthesize"):
        settings = json.loads(row["sampler_settings"])
    sampler = generator.open(models, settings)
    images = sampler([_condition(member) for member in members.to_dict("records")])
    index = members["image_id"].tolist().index(image_id)
    stored = np.asarray(decode_image(dict(table.images(synthetic, [image_id]))[image_id]))
    return images[index], stored


def _condition(row: dict[Any, Any]) -> Condition:
    diagnosis = row["diagnosis"] if isinstance(row["diagnosis"], str) else None
    return Condition(row["label"], row["prompt"], int(row["scale"]), int(row["seed"]), diagnosis)
