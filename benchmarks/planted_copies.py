"""What the audit rejects: copies of training images planted in a pool, and images that are none.

Copies of a sample of training images are made by each of `planted_changes.CHANGES` and judged as
the stage `audit` judges a pool, together with honest images: those of other lesions. A share caught
or accused has its exact 95 % interval. `planted_changes.BARS` are the shares asked for.

    python benchmarks/planted_copies.py phantom
    python benchmarks/planted_copies.py real --data ../shared/real/data [--features FOLDER]

- `phantom`: rendered lesions; honest ones are fresh lesions of another seed, held-out ones those of
  a further stream, with the threshold of the demo.
- `real`: ISIC 2019 and 2020. Honest images are the official test part of ISIC 2019, and held-out
  ones further lesions; images of patients of ISIC 2020 are all on one side. Some lesions are in
  both sets under two names, so an honest image that is rejected is listed, to be looked at.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from leak_guard import LANCZOS, Picture
from PIL import Image
from planted_changes import BARS, CHANGES

from dermaflux.audit import features, trunks
from dermaflux.audit.image_sets import ImageSet
from dermaflux.audit.interval import share
from dermaflux.audit.memorisation import rejection
from dermaflux.audit.memorisation.figures import memorisation_figures
from dermaflux.core import table
from dermaflux.core.hashing import rank, sha256
from dermaflux.params import Audit
from dermaflux.phantom import draw, render

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MIXTURES = (0.0, 0.05, 0.2)
"""Shares of copies, mirrored by half, in pools whose figures of memorisation are given."""


def encoded(image: Picture, kind: str = "PNG") -> bytes:
    """As a pool (PNG) or a corpus (JPEG of quality 95) has it."""
    file = io.BytesIO()
    image.convert("RGB").save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return file.getvalue()


def row(content: bytes, image_id: str, split: str, label: str = "benign") -> dict[str, Any]:
    """A row of the table."""
    return {
        "image": {"bytes": content, "path": None},
        "image_id": image_id,
        "source": "planted",
        "label": label,
        "split": split,
        "sha256": sha256(content),
    }


def phantom(count: int, others: int) -> dict[str, Iterator[tuple[str, bytes]]]:
    """Rendered lesions of 128 pixels: `count` for training, `others` honest and held-out ones."""

    def lesions(stream: str, number: int, kind: str) -> Iterator[tuple[str, bytes]]:
        for index in range(number):
            label = ("benign", "malignant")[index % 2]
            pixels = render(draw(index, stream, label), 128, 128)
            yield f"{stream}/{index:06d}", encoded(Image.fromarray(pixels), kind)

    return {
        "training": lesions("planted training", count, "JPEG"),
        "held-out": lesions("planted held-out", others, "JPEG"),
        "honest": lesions("planted honest", others, "PNG"),
    }


def real(data: Path, count: int, others: int) -> dict[str, Iterator[tuple[str, bytes]]]:
    """Photographs of 224 pixels; patients of ISIC 2020 on one side each."""

    def images(files: Sequence[Path], kind: str) -> Iterator[tuple[str, bytes]]:
        for file in files:
            image = Image.open(file).convert("RGB").resize((224, 224), LANCZOS)
            yield f"real/{file.stem}", encoded(image, kind)

    def files(folder: str) -> list[Path]:
        found = sorted((data / folder).rglob("*.jpg"), key=lambda path: rank(path.stem))
        return [path for path in found if path.is_file()]

    with next((data / "isic2020").glob("*_GroundTruth.csv")).open(encoding="utf-8-sig") as file:
        patient = {each["image_name"]: each["patient_id"] for each in csv.DictReader(file)}
    of_2020 = [file for file in files("isic2020/train") if file.stem in patient]
    apart = [rank("side", patient[file.stem])[0] % 2 == 0 for file in of_2020]
    inside = [file for file, away in zip(of_2020, apart, strict=True) if not away]
    outside = [file for file, away in zip(of_2020, apart, strict=True) if away]
    of_2019 = files("isic2019/ISIC_2019_Training_Input")
    first = max(count - len(inside), 0)
    training = [*inside[:count], *of_2019[:first]]
    rest = [*outside, *of_2019[first:]]
    rest.sort(key=lambda path: rank("rest", path.stem))
    official = files("isic2019/ISIC_2019_Test_Input")
    missing = max(others - len(official), 0)
    return {
        "training": images(sorted(training), "JPEG"),
        "held-out": images(rest[missing : missing + others], "JPEG"),
        "honest": images([*official[:others], *rest[:missing]], "PNG"),
    }


def write(
    folder: Path, groups: dict[str, Iterator[tuple[str, bytes]]], copies: int
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The tables `corpus` and `pool`; counts, and of each copy its kind and its original."""
    training = dict(groups["training"])
    corpus = [row(content, name, "train") for name, content in training.items()]
    corpus += [row(content, name, "validation") for name, content in groups["held-out"]]
    honest = [row(content, name, "train") for name, content in groups["honest"]]
    originals = sorted(training, key=lambda name: rank("copied", name))[:copies]
    chance, planted, made = random.Random(0), [], []
    for kind, change in CHANGES.items():
        for name in originals:
            image = Image.open(io.BytesIO(training[name])).convert("RGB")
            copy = change(image, chance).convert("RGB").resize(image.size, LANCZOS)
            planted.append(row(encoded(copy), f"copy/{len(planted):06d}", "train"))
            made.append((kind, name))
    table.write(corpus, folder / "corpus", 256)
    table.write([*planted, *honest], folder / "pool", 256)
    counts = {
        "training": len(training),
        "held_out": len(corpus) - len(training),
        "honest": len(honest),
        "copies_of_each_kind": len(originals),
    }
    return counts, made


def judged(folder: Path, settings: Audit) -> tuple[rejection.Judged, np.ndarray, np.ndarray]:
    """As the stage `audit` judges them, the features of training images, and those of the others.

    The pool comes in the order of the table, then the held-out images.
    """
    trunk = trunks.open_trunk(settings)
    rows = table.metadata(folder / "corpus", ["image_id", "sha256", "split", "duplicate_group"])
    training, held_out = (
        ImageSet(folder / "corpus", of_split.reset_index(drop=True), str(name))
        for name, of_split in (
            (name, rows[rows["split"] == name]) for name in ("train", "validation")
        )
    )
    pool = ImageSet(
        folder / "pool", table.metadata(folder / "pool", ["image_id", "sha256"]), "train"
    )

    of_training = features.extract(*training, trunk).points
    parts, queries = features.under_symmetries([pool, held_out], trunk)
    space = rejection.Space(trunk, of_training, queries)
    found = rejection.judge(training, [pool, held_out], space, settings)
    return found, of_training, np.concatenate([each.points for each in parts])


def table_of(
    rules: pd.DataFrame, made: Sequence[tuple[str, str]], honest: int
) -> list[dict[str, Any]]:
    """A row for each kind of copy, and one each for honest and held-out images."""
    kinds = pd.Series([kind for kind, _ in made])
    originals = pd.Series([name for _, name in made])
    planted = rules[: len(made)]
    right = (planted["original_id"] == originals) | (planted["nearest_id"] == originals)
    found = []
    for kind in CHANGES:
        part = planted[kinds == kind]
        found.append(
            {
                "images": kind,
                "bar": BARS.get(kind),
                **figures(part),
                "original_named": int((part["rejected"] & right[kinds == kind]).sum()),
            }
        )
    others = {
        "honest": rules[len(made) : len(made) + honest],
        "held-out": rules[len(made) + honest :],
    }
    for name, part in others.items():
        accused = part[part["rejected"]]
        columns = ["image_id", "original_id", "nearest_id", "correlation", "ratio", "reason"]
        listed = accused[columns].round(3).to_dict("records")
        found.append({"images": name, "bar": 0.01, **figures(part), "accused": listed})
    return found


def figures(part: pd.DataFrame) -> dict[str, Any]:
    """Share that is rejected, with its interval, and by which rule."""
    count = int(part["rejected"].sum())
    limits = {name: round(value, 4) for name, value in share(count, len(part))._asdict().items()}
    by_rule = {name: int(part[name].sum()) for name in rejection.RULES}
    return {"of": len(part), "rejected": count, **limits, **by_rule}


def mixtures(
    rules: pd.DataFrame,
    made: Sequence[tuple[str, str]],
    honest: int,
    points: np.ndarray,
    queries: np.ndarray,
) -> list[dict[str, Any]]:
    """AuthPct and C_T of pools of honest images in which some are copies."""
    copies = [index for index, (kind, _) in enumerate(made) if kind in ("exact", "mirrored")]
    copies.sort(key=lambda index: rank("mixture", index))
    first, found = len(made), []
    held_out = rules[first + honest :]
    for part in MIXTURES:
        count = round(part / (1 - part) * honest)
        chosen = [*copies[:count], *range(first, first + honest)]
        features_of = points, queries[chosen], queries[first + honest :]
        of_pool = memorisation_figures(rules.iloc[chosen], held_out, features_of)
        found.append(
            {
                "copies": min(count, len(copies)),
                "honest": honest,
                "authentic": of_pool["pool"]["authentic"],
                "authentic_held_out": of_pool["held_out"]["authentic"],
                "copying_test": of_pool["copying_test"],
            }
        )
    return found


def main() -> None:
    """Plant, judge, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", choices=("phantom", "real"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--features", default="pixels")
    parser.add_argument("--limit", type=float, help="audit.duplicate_correlation")
    parser.add_argument("--training", type=int, default=3000)
    parser.add_argument("--others", type=int, default=1000)
    parser.add_argument("--copies", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULTS / "planted_copies.json")
    given = parser.parse_args()
    limit = given.limit or (0.55 if given.corpus == "phantom" else 0.5)
    settings = Audit(duplicate_correlation=limit, features=given.features)
    groups = (
        phantom(given.training, given.others)
        if given.corpus == "phantom"
        else real(given.data, given.training, given.others)
    )
    with tempfile.TemporaryDirectory() as scratch:
        counts, made = write(Path(scratch), groups, given.copies)
        start, cpu = time.perf_counter(), time.process_time()
        (_, rules), points, queries = judged(Path(scratch), settings)
        seconds = {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    result = {
        "corpus": given.corpus,
        "features": Path(given.features).name,
        "ratio_limit": settings.memorisation_ratio,
        "correlation_limit": limit,
        "counts": counts,
        "rows": table_of(rules, made, counts["honest"]),
        "pools": mixtures(rules, made, counts["honest"], points, queries),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "machine": f"{os.cpu_count()} CPU cores",
    }
    print(json.dumps(result, indent=1))
    known = json.loads(given.out.read_text(encoding="utf-8")) if given.out.is_file() else {}
    known[f"{result['corpus']}, {result['features']}"] = result
    given.out.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
