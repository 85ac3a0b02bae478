"""What synthetic images gain, and what one is worth, as the number of real images grows.

Run in a project folder whose corpus is ingested and whose pool is audited:

    python benchmarks/synthetic_worth.py --sizes 100:0.5,2,4 250:0.5,2,4 500:0.5,2,3 1000:0.5,1.5 \
        --ratios 1 1.75 4 --output results.json

Each size, `n_real:curve`, is trained and evaluated at every ratio through the stages themselves,
with the arms, seeds and architecture of params.yaml; `curve` holds multiples of n_real, as
`train.curve`. Arms that do not depend on the ratio are trained once. Intervals cover seeds and test
images; each size and ratio is one family of comparisons. `--plot FILE` draws the results of
`--from` instead.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dermaflux.classifiers import evaluate, train
from dermaflux.core.files import read_json, write_json
from dermaflux.params import Params, load
from dermaflux.params.arms import TITLES, colour
from dermaflux.reporting import effect_table, evidence_section
from dermaflux.statistics import evaluations, seed_means
from dermaflux.validation import mixture_gate


def settings(base: Params, size: str, ratio: float) -> Params:
    """Parameters of one size and ratio."""
    count, curve = size.split(":")
    changed = base.train.model_copy(update={"curve": [float(each) for each in curve.split(",")]})
    return base.model_copy(
        update={"train": changed, "n_real": int(count), "real_fraction": None, "ratio": ratio}
    )


def measure(params: Params) -> dict[str, Any]:
    """Train and evaluate every seed; AUC of each arm, effects, and what an image was worth."""
    began = time.process_time()
    (name,) = params.architectures()
    for seed in params.train.seeds:
        train.run(params, name, seed, mixture_gate.check)
        evaluate.run(params, name, seed)
    cells = evaluations.load(params)
    means, level = seed_means.means(params, cells), params.evaluate.confidence
    arms = {arm: mean["auc"] for (_, arm), mean in means.items()}
    images = int(cells[0].test["images"])
    said = evidence_section.build(params, means, "auc", images)[name]
    rows = effect_table.judged(
        effect_table.table(means, [name], params.arms(), "auc", level),
        [name] if said.evidence.blind else [],
    )
    return {
        "n_real": params.n_real,
        "ratio": params.ratio,
        "synthetic": params.synthetic_wanted(),
        "architecture": name,
        "seeds": len(params.train.seeds),
        "test": cells[0].test,
        "auc": {arm: asdict(mean.estimate(level)) for arm, mean in arms.items()},
        "auc_per_seed": {arm: mean.values.tolist() for arm, mean in arms.items()},
        "effects": [_effect(row) for row in rows],
        "rate": said.evidence.rate and asdict(said.evidence.rate),
        "said": said.sentences,
        "shortages": cells[0].shortages,
        "cpu_minutes": (time.process_time() - began) / 60,
    }


def _effect(row: effect_table.Row) -> dict[str, Any]:
    return {
        "arm": row.arm,
        "against": row.against,
        "difference": row.effect.value,
        "low": row.effect.low,
        "high": row.effect.high,
        "p": row.p,
        "comparisons": row.comparisons,
        "detectable": row.detectable,
        "verdict": row.verdict,
    }


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """AUC of every arm over the real images at the largest ratio, with 95 % intervals."""
    from matplotlib import pyplot

    ratio = max(row["ratio"] for row in rows)
    rows = sorted((r for r in rows if r["ratio"] == ratio), key=lambda row: int(row["n_real"]))
    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for place, arm in enumerate(("real", "repeated", "shuffled", "mixture", "more_real")):
        points = [
            (row["n_real"] * 1.025 ** (place - 2), row["auc"][arm])
            for row in rows
            if arm in row["auc"]
        ]
        mean = [at["value"] for _, at in points]
        below = [at["value"] - at["low"] for _, at in points]
        above = [at["high"] - at["value"] for _, at in points]
        axes.errorbar(
            *([x for x, _ in points], mean, (below, above)),
            marker="o",
            markersize=4,
            capsize=2,
            color=colour(arm),
            label=TITLES[arm],
        )
    counts = [row["n_real"] for row in rows]
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.set_xlabel(f"real images; {ratio:g} added for each of them")
    axes.set_ylabel("test ROC-AUC")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    """Measure, print and write JSON, or draw what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["100:0.5,2,4"])
    parser.add_argument("--ratios", type=float, nargs="+", default=[1, 1.75, 4])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--from", dest="measured", type=Path, nargs="+", default=[])
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    rows = [
        row
        for path in arguments.measured
        for row in read_json(path, "this benchmark", "rows")["rows"]
    ]
    if not arguments.plot:
        base = load.load()
        for size in arguments.sizes:
            for ratio in arguments.ratios:
                rows.append(measure(settings(base, size, ratio)))
                print(rows[-1], flush=True)
                if arguments.output:
                    write_json(arguments.output, {"rows": rows})
    elif arguments.output:
        write_json(arguments.output, {"rows": rows})
    if arguments.plot:
        draw(rows, arguments.plot)


if __name__ == "__main__":
    main()
