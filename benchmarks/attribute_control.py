"""Whether images have the attributes that their prompts ask for: asymmetry, border, colours.

Run in a project folder after `dermaflux synthesize`:

    python benchmarks/attribute_control.py --output results.json

Prompts are read by the words that `caption` reports agreement for, pictures are measured as the
captioner `measured` measures photographs. Spearman's rho of asked level and measured value, with
95 % intervals over 2,000 resamples of images, for the pool and for as many test images beside
their own captions: the reference, where words and picture belong together. `shuffled` pairs each
picture with another one's prompt of its class, where rho should be near 0.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import bootstrap, spearmanr

from dermaflux import paths
from dermaflux.captions.lesion.measured import Measurements, measure
from dermaflux.captions.text.agreement import asymmetry_level, border_level, colour_level
from dermaflux.core import table
from dermaflux.core.arrays import Array
from dermaflux.core.files import write_json

ATTRIBUTES = {"asymmetry": asymmetry_level, "border": border_level, "colours": colour_level}
RESAMPLES = 2000


def values(found: Measurements) -> dict[str, float | None]:
    """Measured value of each attribute; None where it could not be measured."""
    colours = None if found.colours is None else float(len(found.colours))
    return {"asymmetry": found.asymmetry, "border": found.border_irregularity, "colours": colours}


def spearman(asked: Array, measured: Array) -> dict[str, float]:
    """Rho of two (N,) columns, with a percentile interval over resampled rows."""
    found = bootstrap(
        (asked, measured),
        lambda x, y: spearmanr(x, y).statistic,
        paired=True,
        vectorized=False,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    rho = float(spearmanr(asked, measured).statistic)
    return {"rho": rho, "low": float(found.low), "high": float(found.high)}


def control(prompts: list[str], measured: list[Measurements]) -> dict[str, Any]:
    """Rho of each attribute, over the images where both sides are known."""
    out: dict[str, Any] = {}
    for name, level in ATTRIBUTES.items():
        pairs = [
            (asked, value)
            for prompt, found in zip(prompts, measured, strict=True)
            if (asked := level(prompt)) is not None and (value := values(found)[name]) is not None
        ]
        if len(pairs) < 3:
            out[name] = None
            continue
        asked, seen = np.array(pairs, dtype=float).T
        out[name] = {**spearman(asked, seen), "images": len(pairs)}
    return out


def shuffled(prompts: list[str], labels: list[str]) -> list[str]:
    """Prompts permuted at random within each class."""
    draw, out = np.random.default_rng(0), np.array(prompts, dtype=object)
    for label in sorted(set(labels)):
        places = np.flatnonzero(np.array(labels) == label)
        out[places] = out[draw.permutation(places)]
    return list(out)


def measured(folder: Path, ids: list[str], side: int | None = None) -> list[Measurements]:
    """Of images of a table folder, in the order of `ids`."""
    found = {name: measure(image) for name, image in table.decoded(folder, ids, side=side)}
    return [found[name] for name in ids]


def main() -> None:
    """Measure, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    pool = table.metadata(paths.SYNTHETIC, ["image_id", "prompt", "label", "scale"])
    prompts, labels = pool["prompt"].tolist(), pool["label"].tolist()
    seen = measured(paths.SYNTHETIC, pool["image_id"].tolist())
    test = table.metadata(paths.CORPUS, ["image_id"], "test")["image_id"]
    captions = pd.concat(map(pd.read_parquet, sorted(paths.CAPTIONS.glob("*.parquet"))))
    real = captions.set_index("image_id").loc[
        test.sample(min(len(pool), len(test)), random_state=0)
    ]
    rows = {
        "synthetic": control(prompts, seen),
        "shuffled": control(shuffled(prompts, labels), seen),
        "real": control(
            real["caption"].tolist(),
            measured(paths.CORPUS, real.index.tolist(), int(pool["scale"].iloc[0])),
        ),
    }
    for kind, attributes in rows.items():
        for name, found in attributes.items():
            said = "too few images"
            if found is not None:
                said = "{rho:.2f} ({low:.2f} to {high:.2f}) of {images} images".format(**found)
            print(f"{kind} {name}: {said}")
    if arguments.output:
        write_json(arguments.output, rows)


if __name__ == "__main__":
    main()
