"""What the leak guard finds: copies planted among real images, and copies that were there already.

Copies of a sample of real images are made by each of `TRANSFORMS`, all go into one corpus with all
real images, and one search looks for pairs. Recall is the share of copies joined to their original
directly. Every other pair of that corpus is a negative, and false where it is joined, unless both
images are made from the two of a pair found among the real images as they are (those are listed one
by one: all joined in the results kept here were looked at and show one lesion) or in `SAME_LESION`.

    python benchmarks/leak_guard.py ../shared/real/data [--sample 600] [--out results.json]
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dermaflux.corpus.duplicates import search
from dermaflux.corpus.duplicates.signatures import SIDE
from dermaflux.corpus.duplicates.verify import MINIMUM_CORRELATION

Picture = Image.Image
SAME_LESION = {
    ("ISIC_0027636", "ISIC_0027994"),
    ("ISIC_0034887", "ISIC_0035633"),
    ("ISIC_0035689", "ISIC_0036039"),
    ("ISIC_0035936", "ISIC_0035948"),
}
"""Pairs found through planted copies only that, looked at, show one lesion photographed twice."""
THRESHOLDS = (0.4, 0.45, 0.5, 0.55, 0.6)
LANCZOS = Image.Resampling.LANCZOS


def photographs(data: Path) -> list[Path]:
    """The JPEG files of a data folder in a fixed order."""
    return sorted(path for path in data.rglob("*.jpg") if path.is_file())


def thumbnail(image: Picture) -> np.ndarray[Any, Any]:
    """As the stage `ingest` makes it: grey, uint8 (64, 64), the whole picture squashed."""
    return np.asarray(image.convert("RGB").convert("L").resize((SIDE, SIDE), LANCZOS))


def _jpeg(image: Picture, quality: int) -> Picture:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return Image.open(io.BytesIO(out.getvalue()))


def _cut(image: Picture, left: float, top: float, right: float, bottom: float) -> Picture:
    width, height = image.size
    box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    return image.crop(tuple(round(edge) for edge in box))


def _tinted(image: Picture, red: float, blue: float) -> Picture:
    return image.convert("RGB", (red, 0, 0, 0, 0, 1, 0, 0, 0, 0, blue, 0))


def _everything(image: Picture, draw: random.Random) -> Picture:
    share = draw.uniform(0, 0.05)
    small = _cut(image, *[share] * 4).resize((128, 128), LANCZOS)
    turned = small.transpose(Image.Transpose(draw.randrange(7)))
    return _jpeg(_tinted(turned, 1.1, 0.9), 50)


TRANSFORMS: dict[str, Callable[[Picture, random.Random], Picture]] = {
    "JPEG quality 50": lambda image, _: _jpeg(image, 50),
    "resized to 128": lambda image, _: _jpeg(image.resize((128, 128), LANCZOS), 85),
    "resized to 64": lambda image, _: _jpeg(image.resize((64, 64), LANCZOS), 85),
    "mirrored": lambda image, _: _jpeg(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 85),
    "rotated by 90, 180 or 270 degrees": lambda image, draw: _jpeg(
        image.transpose(Image.Transpose(draw.choice((2, 3, 4)))), 85
    ),
    "transposed": lambda image, draw: image.transpose(Image.Transpose(draw.choice((5, 6)))),
    "red x 1.15, blue x 0.85": lambda image, _: _tinted(image, 1.15, 0.85),
    "gamma 0.8": lambda image, _: image.point(lambda value: 255 * (value / 255) ** 0.8),
    "crop 5 % on each side": lambda image, _: _cut(image, *[0.05] * 4),
    "crop 10 % on each side": lambda image, _: _cut(image, *[0.1] * 4),
    "crop 0-5 %, each side its own": lambda image, draw: _cut(
        image, *(draw.uniform(0, 0.05) for _ in range(4))
    ),
    "crop 0-10 %, each side its own": lambda image, draw: _cut(
        image, *(draw.uniform(0, 0.1) for _ in range(4))
    ),
    "crop 0-20 %, each side its own": lambda image, draw: _cut(
        image, *(draw.uniform(0, 0.2) for _ in range(4))
    ),
    "rotated by 5 degrees": lambda image, _: _cut(image.rotate(5, Image.BICUBIC), *[0.05] * 4),
    "crop 0-5 %, turned, 128, tinted, JPEG 50": _everything,
}


def published_pairs(data: Path, names: list[str]) -> set[tuple[str, str]]:
    """Pairs that the datasets themselves declare: equal lesion ids, lists of duplicates."""
    found, here, lesions = set(), set(names), {}
    for path in sorted(data.rglob("*.csv")):
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                if "image_name_1" in row:
                    found.add((row["image_name_1"], row["image_name_2"]))
                name = row.get("image") or row.get("image_name") or ""
                if row.get("lesion_id") and name in here:
                    lesions.setdefault(row["lesion_id"], []).append(name)
    for members in lesions.values():
        found.update(combinations(members, 2))
    return {(min(pair), max(pair)) for pair in found if here.issuperset(pair)}


def main() -> None:
    """Plant, search once, print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--sample", type=int, default=600)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    files = photographs(given.data)
    names = [path.stem for path in files]
    draw = random.Random(0)
    sample = sorted(draw.sample(range(len(files)), min(given.sample, len(files))))
    pictures = [thumbnail(Image.open(path)) for path in files]
    family = list(range(len(files)))
    kinds: list[str | None] = [None] * len(files)
    for item in sample:
        image = Image.open(files[item]).convert("RGB")
        for kind, change in TRANSFORMS.items():
            pictures.append(thumbnail(change(image, draw)))
            family.append(item)
            kinds.append(kind)
    stacked = np.stack(pictures)
    started = time.perf_counter()
    best: dict[tuple[int, int], float] = {}
    for found in search.copies(len(stacked), lambda chosen: stacked[chosen]):
        for (one, two), score in zip(found.candidates.pairs.tolist(), found.scores, strict=True):
            pair = (min(one, two), max(one, two))
            best[pair] = max(best.get(pair, 0.0), float(score))
    result = _tables(best, family, kinds, names, len(sample))
    result["seconds"] = round(time.perf_counter() - started, 1)
    declared = published_pairs(given.data, names)
    for row in result["real_pairs"]:
        row["declared"] = tuple(row["images"]) in declared
    sets = [path.relative_to(given.data).parts[0] for path in files]
    joined = [row for row in result["real_pairs"] if row["correlation"] >= MINIMUM_CORRELATION]
    place = {name: index for index, name in enumerate(names)}
    across = [row for row in joined if len({sets[place[name]] for name in row["images"]}) > 1]
    result["joined_across_datasets"] = len(across)
    result["declared_pairs"] = len(declared)
    result["machine"] = f"{os.cpu_count()} CPU cores"
    print(json.dumps(result, indent=1))
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _tables(
    best: dict[tuple[int, int], float],
    family: list[int],
    kinds: list[str | None],
    names: list[str],
    sample: int,
) -> dict[str, Any]:
    real = {pair: score for pair, score in best.items() if kinds[pair[1]] is None}
    recall = {}
    for kind in TRANSFORMS:
        scores = [
            score for (one, two), score in best.items() if family[two] == one and kinds[two] == kind
        ]
        recall[kind] = {
            f"{limit}": round(sum(score >= limit for score in scores) / sample, 4)
            for limit in THRESHOLDS
        }
    precision = {}
    for limit in THRESHOLDS:
        alike = {pair for pair, score in real.items() if score >= limit}
        true = false = 0
        wrong: set[tuple[str, ...]] = set()
        for (one, two), score in best.items():
            if score >= limit and kinds[two] is not None:
                families = (min(family[one], family[two]), max(family[one], family[two]))
                same = families[0] == families[1]
                true += same
                pair = tuple(sorted(names[item] for item in families))
                if not same and families not in alike and pair not in SAME_LESION:
                    false += 1
                    wrong.add(pair)
        precision[f"{limit}"] = {
            "true_pairs": true,
            "false_pairs": false,
            "precision": round(true / max(true + false, 1), 6),
            "false_pairs_are_copies_of": sorted(wrong),
            "real_pairs_joined": len(alike),
        }
    listed = sorted(((score, pair) for pair, score in real.items()), reverse=True)
    return {
        "images": len(names),
        "pictures": len(family),
        "chosen_threshold": MINIMUM_CORRELATION,
        "recall": recall,
        "precision": precision,
        "real_candidates": len(real),
        "real_pairs": [
            {"images": sorted(names[item] for item in pair), "correlation": round(score, 3)}
            for score, pair in listed
            if score >= 0.3
        ],
    }


if __name__ == "__main__":
    main()
