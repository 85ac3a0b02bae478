"""Classifiers on few real images, with the pools of several generators and with none.

    python benchmarks/low_data.py --fractions 0.01 0.1 --synthetic 398 \
        --pools vap=first class_only=second --output results.json

VAP-Diffusion's Table 3 asks what synthetic images change where real ones are few. Each pool is that
of a project folder, all of one corpus, with an audited pool. For each share of the training split
the one of `train.architectures` is trained on it alone and with `--synthetic` images of each pool
that the audit has not rejected, for the seeds and by the recipe of the first folder's params.yaml.
Differences of the test AUC are paired by seed and test image; their intervals cover both, and hold
together for the comparisons of a share.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dermaflux.classifiers import evaluate, train
from dermaflux.core.files import write_json
from dermaflux.params import Params, load
from dermaflux.statistics import evaluations, seed_means
from dermaflux.statistics.seed_means import SeedMean
from dermaflux.validation import mixture_gate


def settings(base: Params, fraction: float, synthetic: int) -> Params:
    """Parameters of one share of the real images."""
    arms = base.train.model_copy(update={"arms": ["real", "mixture"], "curve": []})
    changes = {"train": arms, "real_fraction": fraction, "n_synthetic": synthetic}
    return base.model_copy(update=changes)


def trained(params: Params, folder: Path) -> dict[str, SeedMean]:
    """Test AUC of the arms `real` and `mixture` with the pool of a project folder."""
    (name,) = params.architectures()
    with contextlib.chdir(folder):
        for seed in params.train.seeds:
            train.run(params, name, seed, mixture_gate.check)
            evaluate.run(params, name, seed)
        means = seed_means.means(params, evaluations.load(params))
    return {arm: metrics["auc"].by_seed for (_, arm), metrics in means.items()}


def measure(params: Params, pools: dict[str, Path]) -> dict[str, Any]:
    """AUC with each pool and with none, and the difference of every pair of them."""
    began, level = time.process_time(), params.evaluate.confidence
    arms: dict[str, SeedMean] = {}
    for name, folder in pools.items():
        of_pool = trained(params, folder)
        arms = {"none": of_pool["real"], **arms, name: of_pool["mixture"]}
    pairs = [(more, less) for less, more in itertools.combinations(arms, 2)]
    return {
        "real_fraction": params.real_fraction,
        "synthetic": params.n_synthetic,
        "seeds": len(params.train.seeds),
        "auc": {name: asdict(mean.estimate(level)) for name, mean in arms.items()},
        "auc_per_seed": {name: mean.values.tolist() for name, mean in arms.items()},
        "differences": [
            {"pool": more, "against": less}
            | asdict(arms[more].minus(arms[less], level, len(pairs)))
            for more, less in pairs
        ],
        "cpu_minutes": (time.process_time() - began) / 60,
    }


def main() -> None:
    """Measure, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.01, 0.1, 1.0])
    parser.add_argument("--synthetic", type=int, default=400)
    parser.add_argument("--pools", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    pools = {
        name: Path(folder).resolve()
        for name, _, folder in (pool.partition("=") for pool in arguments.pools)
    }
    with contextlib.chdir(next(iter(pools.values()))):
        base = load.load()
    rows = []
    for fraction in arguments.fractions:
        rows.append(measure(settings(base, fraction, arguments.synthetic), pools))
        print(rows[-1], flush=True)
        if arguments.output:
            write_json(arguments.output, {"rows": rows})


if __name__ == "__main__":
    main()
