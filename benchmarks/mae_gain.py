"""What a pre-trained encoder gains over training from scratch, by the number of real images.

Run in a project folder whose corpus is ingested and whose stage `pretrain` has run with
`train.recipe: mae` (and, for `--source synthetic` or `both`, whose pool is audited):

    python benchmarks/mae_gain.py --sizes 240:40 1000:20 all:8 --output results.json

Each size, `images:epochs`, trains and evaluates `pretrain.architecture` for every seed through the
stages themselves. Figures are means over seeds; the intervals of `real - scratch` cover seeds and
test images (`dermaflux.statistics.effects`). `random_features` trains nothing but its last layer.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from dermaflux.classifiers import evaluate, train
from dermaflux.core.files import read_json, write_json
from dermaflux.params import Params, load
from dermaflux.paths import PRETRAIN_REPORT
from dermaflux.statistics import evaluations, seed_means
from dermaflux.validation import mixture_gate

_SCRATCH = "scratch"


def settings(base: Params, size: str, arms: list[Any], seeds: list[int]) -> Params:
    """Parameters of one size; `all` is the training split in its own proportions."""
    count, epochs = size.split(":")
    changed = base.train.model_copy(
        update={
            "architectures": [base.pretrain.architecture],
            "arms": arms,
            "seeds": seeds,
            "epochs": int(epochs),
            "sampling": "balanced" if count == "all" else "shuffled",
            "selection_images": 400,
        }
    )
    images: dict[str, Any] = {"real_fraction": 1.0} if count == "all" else {"n_real": int(count)}
    return base.model_copy(update={"train": changed, "ratio": 0.0, **images})


def measure(params: Params, size: str) -> dict[str, Any]:
    """Train and evaluate every seed; validation and test AUC of each arm, and the effects."""
    began = time.process_time()
    name = params.pretrain.architecture
    for seed in params.train.seeds:
        train.run(params, name, seed, mixture_gate.check)
        evaluate.run(params, name, seed)
    cells = evaluations.load(params)
    means, level = seed_means.means(params, cells), params.evaluate.confidence
    rows: dict[str, Any] = {}
    for arm in params.train.arms:
        mean = means[name, arm]["auc"]
        found = mean.estimate(level)
        validation = [cell.arms[arm]["validation_auc"] for cell in cells]
        rows[arm] = {
            "test_auc": found.value,
            "interval": [found.low, found.high],
            "per_seed": mean.values.tolist(),
            "validation_auc": sum(validation) / len(validation),
        }
        if arm != _SCRATCH and _SCRATCH in params.train.arms:
            gain = mean.minus(means[name, _SCRATCH]["auc"], level, 1)
            rows[arm]["minus_scratch"] = [gain.value, gain.low, gain.high]
    minutes = (time.process_time() - began) / 60
    row = {"size": size, "arms": rows, "test": cells[0].test, "cpu_minutes": minutes}
    print(row, flush=True)
    return row


def main() -> None:
    """Measure, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["240:40", "1000:20", "all:8"])
    parser.add_argument("--arms", nargs="+", default=["real", "scratch", "random_features"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    base, rows = load.load(), []
    for size in arguments.sizes:
        rows.append(measure(settings(base, size, arguments.arms, arguments.seeds), size))
        if arguments.output:
            pretraining = read_json(PRETRAIN_REPORT, "`dermaflux pretrain`")
            write_json(arguments.output, {"pretraining": pretraining, "rows": rows})


if __name__ == "__main__":
    main()
