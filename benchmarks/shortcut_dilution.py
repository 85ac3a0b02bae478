"""Do images without any class signal gain over real ones, because they dilute a shortcut?

The composition that `benchmarks/shortcut.py` computes, on phantom lesions: a source that shows a
black border is 84 % of the benign and 2 % of the malignant images of training and validation, and
absent from the test part. The pool is fresh lesions without a border. Two laws of drawing real
images, `pooled` and `matched`, are trained with four arms: `real`, `repeated`, `shuffled` (the pool
with permuted labels, so without any class signal) and `mixture` (the pool with its labels).

    python benchmarks/shortcut_dilution.py --work FOLDER --output results.json

Every stage from `ingest` to `evaluate` runs in FOLDER with the demo's parameters but for those in
`parameters`; a run that was stopped continues there. Intervals cover seeds and test images and are
simultaneous for the comparisons of a draw and metric.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dermaflux.classifiers import evaluate, train
from dermaflux.core.files import write_json
from dermaflux.params import Params, load
from dermaflux.phantom import pool
from dermaflux.phantom.layout import PlannedImage
from dermaflux.phantom.render import render
from dermaflux.statistics import evaluations, seed_means
from dermaflux.statistics.effects import Effect
from dermaflux.validation import mixture_gate

SIDE, BORDER = 128, 14  # pixels
TRAINING, TEST, REAL, RATIO = 6400, 1000, 1000, 1.75
BORDERED = {"benign": 0.84, "malignant": 0.02}  # of the published draw: 1,051 and 16 of 1,250
ARMS = ["real", "repeated", "shuffled", "mixture"]
STAGES = (
    *("corpus.ingest", "captions.caption", "validation.validate", "generators.finetune"),
    *("generators.synthesize", "validation.validate_pool", "audit.audit", "classifiers.pretrain"),
)
ARCHITECTURE = "resnext"
ALONE = ("training_source_auc", "validation_auc", "source_auc", "sensitivity", "specificity")


def _save(folder: Path, images: Sequence[PlannedImage], *, bordered: bool) -> None:
    """JPEG files of `SIDE` pixels, in folders of their label."""
    from PIL import Image

    for image in images:
        pixels = render(image.lesion, SIDE, SIDE)
        if bordered:
            inside = pixels[BORDER:-BORDER, BORDER:-BORDER].copy()
            pixels[:] = 0
            pixels[BORDER:-BORDER, BORDER:-BORDER] = inside
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "JPEG", quality=image.quality)
        path = folder / Path(image.path).with_suffix(".jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.getvalue())


def render_all(folder: Path) -> None:
    """`bordered` and `plain` with its test part in `folder`/data, the pool in `folder`/pool."""
    images = pool.plan(TRAINING, seed=1)
    for label, share in BORDERED.items():
        members = [image for image in images if image.label == label]
        count = round(share * len(members))
        _save(folder / "data" / "bordered", members[:count], bordered=True)
        _save(folder / "data" / "plain", members[count:], bordered=False)
    _save(folder / "data" / "plain" / "test", pool.plan(TEST, seed=2), bordered=False)
    fresh = pool.plan(2 * round(REAL * RATIO / 2), seed=3)
    _save(folder / "pool", fresh, bordered=False)


def parameters(shipped: Path, draw: str, seeds: int) -> Params:
    """The demo's parameters with what this benchmark changes; also written to params.yaml."""
    raw = load.read(shipped)
    raw |= {"n_real": REAL, "ratio": RATIO, "generator": "released"}
    raw["ingest"] |= {
        "own": [{"name": name, "folder": name} for name in ("bordered", "plain")],
        "validation_fraction": 0.1,
    }
    raw["caption"]["captioner"] = "label"
    raw["validate"]["caption_characters"] = [20, 1600]
    raw["synthesize"]["images"] = 2 * round(REAL * RATIO / 2)
    raw["synthesize"]["released"]["folder"] = "pool"
    raw["train"] |= {
        "architectures": [ARCHITECTURE], "seeds": list(range(seeds)), "arms": ARMS, "curve": [],
        "draw": draw, "match_by": ["source"], "epochs": 10, "image_size": 32,
    }  # fmt: skip
    raw["promote"]["architecture"] = ARCHITECTURE
    Path("params.yaml").write_text(json.dumps(raw), encoding="utf-8")
    return load.load()


def measure(params: Params) -> dict[str, Any]:
    """Train and evaluate every seed of a draw: arms and their differences, accuracy and AUC."""
    for seed in params.train.seeds:
        train.run(params, ARCHITECTURE, seed, mixture_gate.check)
        evaluate.run(params, ARCHITECTURE, seed)
        print(f"{params.train.draw}: seed {seed} after {time.process_time():.0f} CPU s", flush=True)
    cells = evaluations.load(params)
    means, level = seed_means.means(params, cells), params.evaluate.confidence
    pairs = [(arm, against) for arm in ARMS[2:] for against in ARMS[:2]]
    result: dict[str, Any] = {"test": cells[0].test, "arms": {}, "differences": []}
    for metric in ("accuracy", "auc"):
        of = {arm: means[ARCHITECTURE, arm][metric] for arm in ARMS}
        result["arms"][metric] = {arm: asdict(mean.estimate(level)) for arm, mean in of.items()}
        result["differences"] += [
            {"metric": metric, "arm": arm, "against": against}
            | _limits(of[arm].minus(of[against], level, len(pairs)))
            for arm, against in pairs
        ]
    result["means"] = {
        arm: {name: float(np.mean([cell.arms[arm][name] for cell in cells])) for name in ALONE}
        for arm in ARMS
    }
    return result


def _limits(effect: Effect) -> dict[str, float]:
    return {"difference": effect.value, "low": effect.low, "high": effect.high}


def main() -> None:
    """Render, run, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    shipped, output = Path("params.yaml").resolve(), given.output.resolve()
    for name in (".dvc", "mlruns"):
        (given.work / name).mkdir(parents=True, exist_ok=True)
    os.chdir(given.work)
    if not Path("pool").exists():
        render_all(Path())
    for stage in STAGES:
        importlib.import_module(f"dermaflux.{stage}").run(
            parameters(shipped, "pooled", given.seeds)
        )
    draws = {
        draw: measure(parameters(shipped, draw, given.seeds)) for draw in ("pooled", "matched")
    }
    facts = {"n_real": REAL, "ratio": RATIO, "bordered": BORDERED, "seeds": given.seeds}
    write_json(output, {**facts, "cpu_minutes": time.process_time() / 60, "draws": draws})


if __name__ == "__main__":
    main()
