"""What the audit finds: copies of real training images planted in a pool, and others.

Real images are divided into a training set and a pool. Copies of 20 training images by each change
are added to the pool; every other image of the pool that is flagged is listed, to be looked at:
photographs of one lesion are in the public data, too.

    python benchmarks/audit.py ../shared/real/data [--training 6000] [--limit 0.5]
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import numpy as np
from leak_guard import LANCZOS, TRANSFORMS, Picture, photographs, thumbnail
from PIL import Image, ImageDraw, ImageFilter

from dermaflux.audit import features, trunks
from dermaflux.audit.memorisation import copies, distance_ratio
from dermaflux.audit.memorisation.neighbours import orientations
from dermaflux.core.arrays import Array

COUNT = 20


def shifted(image: Picture, share: float) -> Picture:
    """Moved right and down, black where nothing is left."""
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        (1, 0, -share * image.width, 0, 1, -share * image.height),
    )


def noisy(image: Picture) -> Picture:
    """With Gaussian noise of 8 grey levels."""
    values = np.asarray(image) + np.random.default_rng(0).normal(0, 8, (*image.size[::-1], 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def written_over(image: Picture) -> Picture:
    """With a white plate and a text on it, over 9 % of the image."""
    width, height = image.size
    result = image.copy()
    draw = ImageDraw.Draw(result)
    draw.rectangle((0, 0.85 * height, 0.6 * width, height), "white")
    draw.text((2, 0.86 * height), "SAMPLE 12", "black")
    return result


CHANGES = {
    **TRANSFORMS,
    "noise": lambda image, _: noisy(image),
    "blur of 1/64": lambda image, _: image.filter(ImageFilter.GaussianBlur(image.width / 64)),
    "text": lambda image, _: written_over(image),
    "brightness x 1.2": lambda image, _: image.point(lambda value: 1.2 * value),
    **{
        f"shifted by {share:.0%}": lambda image, _, share=share: shifted(image, share)
        for share in (0.02, 0.05, 0.09)
    },
}


def spaces(images: list[Picture]) -> tuple[Array, Array]:
    """Features of the space `pixels` in eight symmetries (N, 8, 3072), and thumbnails."""
    trunk = trunks.pixels()
    side = trunk.side
    bicubic = Image.Resampling.BICUBIC
    small = np.stack([np.asarray(image.resize((side, side), bicubic)) for image in images])
    turned = features.symmetries(small).reshape(-1, side, side, 3)
    found = trunk.function(turned)[0].reshape(len(images), 8, -1)
    return found, np.stack([thumbnail(image) for image in images])


def main() -> None:
    """Plant, audit, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--training", type=int, default=6000)
    parser.add_argument("--limit", type=float, default=0.5)
    given = parser.parse_args()
    files = photographs(given.data)
    draw = random.Random(1)
    draw.shuffle(files)
    pictures = [Image.open(file).convert("RGB").resize((256, 256), LANCZOS) for file in files]
    training, others = pictures[: given.training], pictures[given.training :]
    planted = [
        change(image, draw).convert("RGB").resize((256, 256), LANCZOS)
        for change in CHANGES.values()
        for image in training[:COUNT]
    ]
    known, known_thumbnails = spaces(training)
    queries, thumbnails = spaces([*planted, *others])
    points = np.ascontiguousarray(known[:, 0])
    near, _, ratio = distance_ratio.nearest(queries, points, known.__getitem__)
    orientation = orientations(queries, points, near)
    start, cpu = time.perf_counter(), time.process_time()
    original, correlation = copies.most_similar(known_thumbnails, thumbnails, near, orientation)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    copied, too_near = correlation >= given.limit, ratio < 0.5
    for number, kind in enumerate(CHANGES):
        part = slice(number * COUNT, (number + 1) * COUNT)
        right = copied[part] & (original[part] == np.arange(COUNT))
        either = right | too_near[part]
        print(
            f"{kind:42} distance {too_near[part].sum():3}  copy {right.sum():3}  {either.sum():3}"
        )
    rest = slice(len(planted), None)
    print(f"{len(others)} others: distance {too_near[rest].sum()}, copy {copied[rest].sum()}")
    for number in np.nonzero(copied[rest])[0]:
        row = len(planted) + number
        name, of = files[given.training + number].stem, files[original[row]].stem
        print(f"  {name} {of} {correlation[row]:.3f}")
    print(f"{len(queries)} against {len(training)}: {wall:.0f} s, {cpu:.0f} s of all cores")


if __name__ == "__main__":
    main()
