"""Twenty planted copies of each kind are found, with their original, and other images are not."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from drawn_lesions import lesion, row
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from dermaflux.audit import audit
from dermaflux.audit.memorisation import copies
from dermaflux.core import table
from dermaflux.core.vocabulary import CLASSES
from dermaflux.params import Audit

SIDE, COUNT, OTHERS = 96, 20, 60
LANCZOS = Image.Resampling.LANCZOS
Picture = Image.Image


def jpeg(image: Picture, quality: int) -> Picture:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def noise(image: Picture) -> Picture:
    values = np.asarray(image) + np.random.default_rng(0).normal(0, 6, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def crop(image: Picture, share: float) -> Picture:
    cut = round(share * SIDE)
    return image.crop((cut, cut, SIDE - cut, SIDE - cut)).resize((SIDE, SIDE), LANCZOS)


def tint(image: Picture, red: float, blue: float) -> Picture:
    return image.convert("RGB", (red, 0, 0, 0, 0, 1, 0, 0, 0, 0, blue, 0))


def shift(image: Picture, pixels: int) -> Picture:
    moved = Image.new("RGB", image.size, "white")
    moved.paste(image, (pixels, -pixels // 2))
    return moved


def hue(image: Picture) -> Picture:
    hue, saturation, value = image.convert("HSV").split()
    turned = hue.point(lambda level: (level + 15) % 256)
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def text(image: Picture) -> Picture:
    written = image.copy()
    ImageDraw.Draw(written).rectangle((0, 0.85 * SIDE, 0.7 * SIDE, SIDE), "white")
    ImageDraw.Draw(written).text((2, 0.85 * SIDE), "SAMPLE 12", "black")
    return written


KINDS: dict[str, Callable[[Picture], Picture]] = {
    "exact": lambda image: image,
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "JPEG 30": lambda image: jpeg(image, 30),
    "48 px": lambda image: image.resize((48, 48), LANCZOS).resize((SIDE, SIDE), LANCZOS),
    "noise": noise,
    "crop 5 %, mirrored": lambda image: crop(image, 0.05).transpose(Image.Transpose(1)),
    "crop 5 %": lambda image: crop(image, 0.05),
    "crop 10 %": lambda image: crop(image, 0.1),
    "red + 10 %, blue - 10 %": lambda image: tint(image, 1.1, 0.9),
    "red - 10 %, blue + 10 %": lambda image: tint(image, 0.9, 1.1),
    "shift 6 px": lambda image: shift(image, 6),
    "shift 9 px": lambda image: shift(image, 9),
    "brightness x 1.2": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "hue": hue,
    "blur": lambda image: image.filter(ImageFilter.GaussianBlur(1.5)),
    "text": text,
}


@pytest.fixture(scope="module")
def audited(tmp_path_factory) -> tuple[dict, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("planted")
    names = [CLASSES[number % 2] for number in range(4 * OTHERS)]
    images = [lesion(number, label, SIDE) for number, label in enumerate(names)]
    pairs = list(zip(images, names, strict=True))
    corpus = [
        row(
            image, f"isic2019/{number:03d}", label, "train" if number < 2 * OTHERS else "validation"
        )
        for number, (image, label) in enumerate(pairs[: 3 * OTHERS])
    ]
    synthetic = [
        row(image, f"synthetic/other-{number:03d}", label, "train")
        for number, (image, label) in enumerate(pairs[3 * OTHERS :])
    ]
    for kind, change in KINDS.items():
        synthetic += [
            row(change(images[number]), f"synthetic/{kind}/{number:03d}", names[number], "train")
            for number in range(COUNT)
        ]
    table.write(corpus, folder / "corpus", 64)
    table.write(synthetic, folder / "synthetic", 64)
    settings = Audit(duplicate_correlation=0.55)
    return audit.examine(folder / "corpus", folder / "synthetic", settings)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_rejected_and_their_original_named(audited, kind) -> None:
    pairs = audited[1].set_index("image_id")
    planted = pairs.loc[[f"synthetic/{kind}/{number:03d}" for number in range(COUNT)]]
    assert planted["rejected"].sum() >= 18
    found = planted[planted["reason"].str.startswith("copy")]
    assert len(found) >= 17
    assert [name[-3:] for name in found.index] == [name[-3:] for name in found["original_id"]]


def test_other_images_are_kept_and_each_rule_has_its_rate_of_error(audited) -> None:
    report, pairs, _ = audited
    others = pairs[pairs["image_id"].str.startswith("synthetic/other")]
    assert len(others) == OTHERS
    assert not others["rejected"].any()
    assert others["correlation"].max() < 0.5
    assert sum(report["reasons"].values()) == report["memorised_count"] == len(report["rejected"])
    # Of 60 images none: the upper end of Clopper and Pearson's interval is 1 - 0.025^(1 / 60).
    rate = {"flagged_count": 0, "rate": 0.0, "low": 0.0, "high": 1 - 0.025 ** (1 / OTHERS)}
    for rule in ("too near", "copy", "either"):
        assert report["held_out"]["rules"][rule] == pytest.approx(rate)


def test_equal_synthetic_images_are_all_found() -> None:
    images = [np.asarray(lesion(number, "benign", 64).convert("L")) for number in range(12)]
    inner = Image.fromarray(images[3]).crop((6, 6, 58, 58)).resize((64, 64), LANCZOS)
    queries = np.stack([np.asarray(inner)] * 5)
    none = np.zeros((5, 0), int)
    rows, correlation = copies.most_similar(np.stack(images), queries, none, none)
    assert rows.tolist() == [3] * 5
    assert correlation.min() > 0.8


def test_parts_of_a_shifted_image_show_the_middle_of_the_other() -> None:
    image = np.asarray(lesion(5, "benign", 64).convert("L"))[None]
    moved = np.roll(image, (3, -4), axis=(1, 2))
    assert np.array_equal(copies.part_of(moved, -4, 3), copies.part_of(image, 0, 0))
    assert copies.part_of(np.full((1, 64, 64), 7, np.uint8), 8, -8).tolist() == [[[7] * 64] * 64]
