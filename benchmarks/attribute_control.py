"""Whether images have the attributes that their prompts ask for: asymmetry, border, colours.

Run in a project folder after `dermaflux synthesize`:

    python benchmarks/attribute_control.py --output results.json

The figures are those of the audit's group `control`, see `dermaflux.audit.faithfulness.control`,
of every image of the pool and of as many test images, which are resized to the pool's scale and
measured again, beside their own captions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from dermaflux import paths
from dermaflux.audit.faithfulness import control
from dermaflux.audit.faithfulness.control import Values
from dermaflux.captions.lesion.measured import measure
from dermaflux.core import table
from dermaflux.core.files import write_json


def measured(folder: Path, ids: list[str], side: int | None = None) -> list[Values]:
    """Of images of a table folder, in the order of `ids`."""
    images = table.decoded(folder, ids, side=side)
    found = {name: control.values(measure(image)) for name, image in images}
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
        "synthetic": control.agreement(prompts, seen),
        "shuffled": control.agreement(control.permuted(prompts, labels), seen),
        "real": control.agreement(
            real["caption"].tolist(),
            measured(paths.CORPUS, real.index.tolist(), int(pool["scale"].iloc[0])),
        ),
    }
    for kind, attributes in rows.items():
        for name, found in attributes.items():
            said = found.get("reason")
            if said is None:
                said = "{value:.2f} ({low:.2f} to {high:.2f}) of {images} images".format(**found)
            print(f"{kind} {name}: {said}")
    if arguments.output:
        write_json(arguments.output, rows)


if __name__ == "__main__":
    main()
