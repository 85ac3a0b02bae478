"""What the stage `audit` costs: time and memory of each step by numbers of images, and projected.

Every step is run alone in a process of its own at several sizes, on made-up images; a figure that
grows with the images, with their product or both is fitted to the measurements (least squares, not
negative) and projected to the paper's run: 40,000 synthetic and 2,000 held-out images against
508,344 training images. The largest size is projected from the others as a check of the fit. Times
are those of one core's work: wall times would be those of a machine that others use, too.

    python benchmarks/audit.py [--out benchmarks/results/audit.json]

For a network on a GPU the multiplications of the network (torch's FlopCounterMode) and of the
distances are counted and divided by an assumed speed; that part is arithmetic and was not run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from stand_in import PAPER_MIX, write_corpus

ROOT = Path(__file__).resolve().parents[1]
TRAINING, QUERIES = 508_344, 42_000
DIMENSION = 3072  # of the trunk `pixels`
SUSTAINED = 20e12
"""Multiplications a second, each with an addition, assumed: 60 % of what an H100 is sold with in
fp32. The audit computes features and distances in fp32, and torch without TF32 unless it is told
to."""
Json = dict[str, Any]


def thumbnails(count: int, seed: int) -> np.ndarray:
    """Grey images uint8 (N, 64, 64): a blob, and noise at every scale, as skin has it."""
    draws = np.random.default_rng(seed)
    axis = np.arange(64) - 31.5
    result = np.empty((count, 64, 64), np.uint8)
    for number in range(count):
        y, x = axis + draws.uniform(-6, 6), axis + draws.uniform(-6, 6)
        reach = draws.uniform(10, 22, 2)
        blob = np.exp(-(((y[:, None] / reach[0]) ** 2 + (x / reach[1]) ** 2) ** 2))
        noise = draws.normal(0, 5, (64, 64))
        for side in (4, 8, 16, 32):
            noise += np.kron(draws.normal(0, 7, (side, side)), np.ones((64 // side,) * 2))
        result[number] = (draws.uniform(150, 220) - draws.uniform(40, 130) * blob + noise).clip(
            0, 255
        )
    return result


def points(count: int, seed: int) -> np.ndarray:
    """Features float32 (N, 3072)."""
    draws = np.random.default_rng(seed)
    return draws.standard_normal((count, DIMENSION), np.float32)


def decode(training: int, _: int) -> Callable[[], object]:
    """Features of the trunk `pixels` from files of the paper's mix of sizes."""
    from dermaflux.audit import features, trunks
    from dermaflux.core import table

    total = sum(PAPER_MIX.values())
    scales = [
        scale
        for scale, share in PAPER_MIX.items()
        for _ in range(max(1, round(training * share / total)))
    ]
    folder = write_corpus(Path(tempfile.mkdtemp()), scales)[0]
    rows = table.metadata(folder, ["image_id", "sha256"], "train")
    return lambda: features.extract(folder, rows, "train", trunks.pixels())


def distances(training: int, queries: int) -> Callable[[], object]:
    """One search of nearest neighbours over the eight symmetries; the audit makes two."""
    from dermaflux.audit import features, trunks
    from dermaflux.audit.memorisation.neighbours import neighbours

    turn = trunks.pixels().turn
    assert turn is not None
    known, asked = points(training, 0), features.Turned(points(queries, 1), turn)
    return lambda: neighbours(asked, known, 5)


def copies(training: int, queries: int) -> Callable[[], object]:
    """The matcher of the leak guard."""
    from dermaflux.audit.memorisation.copies import most_similar

    known, asked = thumbnails(training, 0), thumbnails(queries, 1)
    near = np.random.default_rng(2).integers(0, training, (queries, 5))
    return lambda: most_similar(known, asked, near, np.zeros_like(near))


def frechet(training: int, queries: int) -> Callable[[], object]:
    """FD of one row of the table of fidelity."""
    from dermaflux.audit.fidelity.frechet import frechet_distance

    known, asked = points(training, 0), points(queries, 1)
    return lambda: frechet_distance(asked, known)


def copying(training: int, queries: int) -> Callable[[], object]:
    """The C_T test with 2,000 held-out images, or as many as there are queries."""
    from dermaflux.audit.memorisation.copying_test import cells_of, copying_test

    known, asked = points(training, 0), points(queries, 1)
    held_out = points(min(2000, queries), 2)
    sizes = (np.linalg.norm(each, axis=1) for each in (asked, held_out))
    return lambda: copying_test(*sizes, cells_of(known, asked, held_out))


STEPS: dict[str, tuple[Callable[[int, int], Callable[[], object]], tuple[tuple[int, int], ...]]] = {
    "copies": (copies, ((4096, 512), (16384, 512), (4096, 1536), (16384, 1536))),
    "distances": (distances, ((8192, 128), (32768, 128), (8192, 384), (24576, 384))),
    "frechet": (frechet, ((4000, 1000), (8000, 1000), (12000, 1000))),
    "copying": (copying, ((8000, 500), (16000, 500), (8000, 2000), (16000, 2000))),
    "decode": (decode, ((256, 0), (512, 0), (1024, 0))),
}
"""Training images and queries: more than a block, than features and than what cells are fitted to,
so that what is allocated once is not taken for what grows."""
TERMS: dict[str, Callable[[float, float], list[float]]] = {
    "decode": lambda n, m: [1, n],
    "distances": lambda n, m: [n * m],
    "copies": lambda n, m: [1, n, m, n * m],
    "frechet": lambda n, m: [1, n + m],
    "copying": lambda n, m: [1, m],
}


def measured(step: str, training: int, queries: int) -> Json:
    """Seconds of one core, and the memory of the step with its inputs beyond an empty process."""
    process = subprocess.run(
        [sys.executable, __file__, "--one", step, str(training), str(queries)],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    found: Json = json.loads(process.stdout.splitlines()[-1])
    print(step, training, queries, found, flush=True)
    return {"training": training, "queries": queries, **found}


def one(step: str, training: int, queries: int) -> None:
    """Run a step and print what it took."""
    import scipy.special  # noqa: F401 - what every step loads is no part of its memory
    import sklearn.cluster  # noqa: F401

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    empty = peak()
    work = STEPS[step][0](training, queries)
    cpu = time.process_time()
    work()
    print(json.dumps({"cpu_s": time.process_time() - cpu, "memory_gib": peak() - empty}))


def projected(rows: list[Json], step: str, figure: str, training: int, queries: int) -> float:
    """From sizes to a size, with terms that cannot be negative."""
    from scipy.optimize import nnls

    # A query takes no more memory than a training image.
    terms = TERMS[step] if figure == "cpu_s" else (lambda n, m: [1, n + m])
    matrix = np.array([terms(row["training"], row["queries"]) for row in rows], float)
    values = np.array([row[figure] for row in rows])
    weights = 1 / np.maximum(values, 1e-3)  # relative errors
    scale = np.maximum(matrix.max(axis=0), 1.0)
    found = nnls(matrix / scale * weights[:, None], values * weights)[0] / scale
    return float(found @ np.array(terms(training, queries), float))


def project(step: str, rows: list[Json]) -> Json:
    """What a step costs at the size of the paper, from measured sizes."""
    last = rows[-1]
    checked = projected(rows[:-1], step, "cpu_s", last["training"], last["queries"])
    counts = (TRAINING + QUERIES, 0) if step == "decode" else (TRAINING, QUERIES)
    memory = projected(rows, step, "memory_gib", *counts)
    if step == "decode":  # at these sizes buffers hide what grows: the features alone
        memory = sum(counts) * DIMENSION * 4 / 2**30
    return {
        "measured": rows,
        "largest_projected_from_others_cpu_s": round(checked, 2),
        "paper_cpu_h": round(projected(rows, step, "cpu_s", *counts) / 3600, 3),
        "paper_memory_gib": round(memory, 2),
    }


def of_a_gpu() -> Json:
    """Multiplications of DINOv2's ViT-L/14 at 224 pixels, and of distances between its features."""
    import timm
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    name = "vit_large_patch14_dinov2"
    with torch.device("meta"):
        model = timm.create_model(name, img_size=224, num_classes=0)
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, 224, 224))
    each, size = counter.get_total_flops() / 2, model.num_features
    # Training images once, and under the symmetries those that are nearest to a query.
    passes = TRAINING + 8 * QUERIES + 8 * QUERIES
    searches = 2 * 8 * QUERIES * TRAINING * (size + DIMENSION)  # in pixels as well
    return {
        "trunk": name,
        "multiplications_per_image": each,
        "features": size,
        "images_through_the_network_at_most": passes,
        "assumed_multiplications_per_second": SUSTAINED,
        "network_h": round(passes * each / SUSTAINED / 3600, 3),
        "distances_h": round(searches / SUSTAINED / 3600, 4),
        "ran": False,
    }


def main() -> None:
    """Measure and project all steps, or one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", nargs=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "audit.json")
    given = parser.parse_args()
    if given.one:
        one(given.one[0], int(given.one[1]), int(given.one[2]))
        return
    result = {
        "training": TRAINING,
        "queries": QUERIES,
        "steps": {
            step: project(step, [measured(step, *size) for size in sizes])
            for step, (_, sizes) in STEPS.items()
        },
        "gpu": of_a_gpu(),
        "machine": f"{os.cpu_count()} CPU cores, used by other programs as well",
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
