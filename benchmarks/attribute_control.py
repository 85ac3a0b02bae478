"""Whether images have the attributes that their prompts ask for: asymmetry, border, colours.

Run in a project folder after `dermaflux synthesize`:

    python benchmarks/attribute_control.py --output results.json

The figures are those of the audit's group `control`, see `dermaflux.audit.faithfulness.control`,
of every image of the pool and of as many test images, which are resized to the pool's scale and
measured again, beside their own captions. Since attributes go with the class, images that know
their class alone agree with prompts to some degree; `within` therefore has rho within each class,
averaged on Fisher's scale by inverse variance. Where prompts state no attribute, as those of a
model of classes alone, each image is judged by a training caption drawn from its class.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dermaflux import paths
from dermaflux.audit.faithfulness import control
from dermaflux.audit.faithfulness.control import Json, Values
from dermaflux.audit.interval import NORMAL
from dermaflux.captions.lesion.measured import measure
from dermaflux.core import table
from dermaflux.core.files import write_json


def measured(folder: Path, ids: list[str], side: int | None = None) -> list[Values]:
    """Of images of a table folder, in the order of `ids`."""
    images = table.decoded(folder, ids, side=side)
    found = {name: control.values(measure(image)) for name, image in images}
    return [found[name] for name in ids]


def averaged(groups: Sequence[Json]) -> Json:
    """Rho of each attribute, averaged over the classes, with a 95 % interval."""
    rows: Json = {}
    for name in control.ATTRIBUTES:
        found = [group[name] for group in groups if group[name].get("value") is not None]
        if len(found) < len(groups):
            rows[name] = {"value": None, "reason": "not known in every class"}
            continue
        z, low = (np.arctanh([one[key] for one in found]) for key in ("value", "low"))
        weight = ((z - low) / NORMAL) ** -2.0
        mean, half = np.average(z, weights=weight), NORMAL / np.sqrt(weight.sum())
        value, below, above = np.tanh([mean, mean - half, mean + half]).tolist()
        images = sum(one["images"] for one in found)
        rows[name] = {"value": value, "low": below, "high": above, "images": images}
    return rows


def judged(texts: Sequence[str], values: Sequence[Values], labels: Sequence[str]) -> Json:
    """Of all images, and within classes."""
    found = control.report(texts, labels, values, sorted(set(labels)))
    return {"all": found.pop("all"), "within": averaged(list(found.values()))}


def drawn(captions: pd.DataFrame, labels: Sequence[str]) -> list[str]:
    """A caption of the same class for each label."""
    draw = np.random.Generator(np.random.PCG64(0))
    of_class = {name: rows["caption"].to_numpy() for name, rows in captions.groupby("label")}
    return [str(draw.choice(of_class[label])) for label in labels]


def main() -> None:
    """Measure, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    pool = table.metadata(paths.SYNTHETIC, ["image_id", "prompt", "label", "scale"])
    prompts, labels = pool["prompt"].tolist(), pool["label"].tolist()
    seen = measured(paths.SYNTHETIC, pool["image_id"].tolist())
    captions = pd.concat(map(pd.read_parquet, sorted(paths.CAPTIONS.glob("*.parquet"))))
    captions = captions.set_index("image_id")
    if all(control.ATTRIBUTES["asymmetry"](prompt) is None for prompt in prompts):
        train = table.metadata(paths.CORPUS, ["image_id"], "train")["image_id"]
        prompts = drawn(captions.loc[train], labels)
    test = table.metadata(paths.CORPUS, ["image_id"], "test")["image_id"]
    real = captions.loc[test.sample(min(len(pool), len(test)), random_state=0)]
    shown = measured(paths.CORPUS, real.index.tolist(), int(pool["scale"].iloc[0]))
    rows = {
        "synthetic": judged(prompts, seen, labels),
        "shuffled": judged(control.permuted(prompts, labels), seen, labels),
        "real": judged(real["caption"].tolist(), shown, real["label"].tolist()),
    }
    for kind, groups in rows.items():
        for group, attributes in groups.items():
            for name, found in attributes.items():
                said = found.get("reason")
                if said is None:
                    said = "{value:.2f} ({low:.2f} to {high:.2f}) of {images} images".format(
                        **found
                    )
                print(f"{kind}, {group}, {name}: {said}")
    if arguments.output:
        write_json(arguments.output, rows)


if __name__ == "__main__":
    main()
