"""One synthetic image made again from its manifest row: `dermaflux reproduce IMAGE_ID`.

Reads synthetic/, models/generator/ and models/backbone/; writes the PNG it is asked for.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.images import decode_image
from dermaflux.errors import InputError
from dermaflux.generators.flux_lora.sampling import load
from dermaflux.generators.flux_lora.sampling.sample import Pictures, Sampler, sample
from dermaflux.generators.synthesize import png, read_weights


def reproduce(image_id: str, output: Path, alone: bool = False) -> None:
    """Sample the image again, write a PNG, say how equal it is."""
    made, kept = remake(image_id, paths.SYNTHETIC, paths.BACKBONE, paths.GENERATOR, alone)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(png(made))
    apart = int(np.abs(made.astype(int) - kept.astype(int)).max())
    how = "alone" if alone else "in its batch"
    verdict = "bit-identical to" if apart == 0 else f"at most {apart} of 255 grey levels from"
    print(f"{image_id} sampled {how} is {verdict} the one in {paths.SYNTHETIC}: {output}")


def remake(
    image_id: str, synthetic: Path, backbone: Path, folder: Path, alone: bool = False
) -> tuple[Pictures, Pictures]:
    """(picture sampled again, picture in the shard), each uint8 (H, W, 3).

    Raises `InputError` for an unknown image or when the generator's weights are not the row's.
    """
    import pandas as pd

    rows = table.metadata(synthetic)
    found = rows[rows["image_id"] == image_id]
    if found.empty:
        raise InputError(
            f"{image_id} is not in {synthetic}; its images are {rows['image_id'].iloc[0]} to "
            f"{rows['image_id'].iloc[-1]}"
        )
    row = found.iloc[0]
    if row["seed"] is None or pd.isna(row["seed"]):
        raise InputError(
            f"{image_id} comes from the folder {row['generator']}, whose images carry no prompt "
            "and no seed; only images sampled here can be made again"
        )
    weights = read_weights(folder, backbone)
    if weights.sha256 != row["weights"]:
        raise InputError(
            f"{image_id} was made with weights {row['weights'][:12]} but {folder} holds "
            f"{weights.sha256[:12]}; check out the revision that made it (`dvc checkout`)"
        )
    members = found if alone else rows[rows["batch"] == row["batch"]].sort_values("image_id")
    sampler = Sampler(
        int(row["steps"]), float(row["guidance"]), int(row["scale"]), row["text_policy"]
    )
    pipe = load.open_generator(folder, backbone, row["base_dtype"])
    pictures = sample(pipe, sampler, members["prompt"].tolist(), [int(s) for s in members["seed"]])
    place = members["image_id"].tolist().index(image_id)
    kept = np.asarray(decode_image(dict(table.images(synthetic, [image_id]))[image_id]))
    return pictures[place], kept
