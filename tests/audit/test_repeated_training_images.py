"""A copy of an image that training holds six times is found; other images are not flagged."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from drawn_lesions import lesion, row
from PIL import Image, ImageFilter

from dermaflux.audit import audit, features, image_sets, trunks
from dermaflux.audit.memorisation import distance_ratio, rejection
from dermaflux.core import table
from dermaflux.core.vocabulary import CLASSES
from dermaflux.params import Audit

SIDE, TRAINING, OTHERS = 64, 60, 20
PIXELS = trunks.pixels()


def encoded(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def moved(image: Image.Image, pixels: int) -> Image.Image:
    return Image.fromarray(np.roll(np.asarray(image), pixels, axis=(0, 1)))


def near_copies(image: Image.Image) -> list[Image.Image]:
    """Five, as exports of one photograph differ: re-encoded, brighter, or moved by a pixel."""
    return [
        encoded(image, 80),
        encoded(image, 50),
        image.point(lambda value: 1.02 * value),
        moved(image, 1),
        moved(image, -1),
    ]


def audited(tmp_path, group: str | None, settings: Audit) -> tuple[dict, pd.DataFrame]:
    labels = [CLASSES[number % 2] for number in range(TRAINING + 2 * OTHERS)]
    images = [lesion(number, label, SIDE) for number, label in enumerate(labels)]
    corpus = [
        row(image, f"isic2019/{n:03d}", labels[n], "train" if n < TRAINING else "validation")
        for n, image in enumerate(images[: TRAINING + OTHERS])
    ]
    corpus += [
        row(image, f"kaggle1/{n:03d}", labels[0], "train")
        for n, image in enumerate(near_copies(images[0]))
    ]
    for record in corpus:
        of_first = record["image_id"] == "isic2019/000" or record["source"] == "kaggle1"
        record["duplicate_group"] = group if of_first else None
        record["scale"] = 256 if record["source"] == "kaggle1" else 128
    synthetic = [
        row(image, f"synthetic/other-{n:03d}", labels[n], "train")
        for n, image in enumerate(images[TRAINING + OTHERS :])
    ]
    blurred = images[0].filter(ImageFilter.GaussianBlur(1.0))
    synthetic.append(row(blurred, "synthetic/copy", labels[0], "train"))
    table.write(corpus, tmp_path / "corpus", 64)
    table.write(synthetic, tmp_path / "synthetic", 64)
    return audit.examine(tmp_path / "corpus", tmp_path / "synthetic", settings)[:2]


@pytest.mark.parametrize("known", ["by ingest", "by nobody"])
def test_a_copy_of_a_repeated_image_is_too_near(tmp_path, monkeypatch, known) -> None:
    monkeypatch.setattr(image_sets, "HELD_OUT", 15)
    by_ingest = known == "by ingest"
    # Above every correlation, the copy rule is off: the group of the table has to do alone.
    settings = Audit(duplicate_correlation=1.0 if by_ingest else 0.55)
    report, pairs = audited(tmp_path, "group 1" if by_ingest else None, settings)
    copy = pairs.set_index("image_id").loc["synthetic/copy"]
    assert copy["ratio"] < 0.5
    assert copy["reason"] == ("too near" if by_ingest else "copy and too near")
    assert report["rejected"] == ["synthetic/copy"]
    assert report["held_out"]["flagged_count"] == 0
    assert (report["held_out"]["images"], report["held_out"]["of"]) == (15, OTHERS)
    assert report["held_out"]["rules"]["either"]["high"] == pytest.approx(1 - 0.025 ** (1 / 15))
    sources = {(row["scale"], row["source"]): row for row in report["nearest_sources"]}
    assert [row["training"] for row in sources.values()] == [TRAINING, 5]
    assert sum(row["nearest"] for row in sources.values()) == OTHERS + 1
    place = pairs["nearest_id"].str.startswith("kaggle1").sum()
    assert sources[256, "kaggle1"]["nearest"] == place

    # As if every copy were a photograph of its own, the copy looks like a new image.
    trunk = trunks.pixels()
    rows = table.metadata(tmp_path / "corpus", ["image_id", "sha256"], "train")
    points, turned = (
        features.extract(tmp_path / "corpus", rows, "train", trunk, symmetric).points
        for symmetric in (False, True)
    )
    pool = table.metadata(tmp_path / "synthetic", ["image_id", "sha256"], "train")
    pool = pool[pool["image_id"] == "synthetic/copy"]
    queries = features.extract(tmp_path / "synthetic", pool, "train", trunk, True).points
    assert distance_ratio.nearest(queries, points, turned.__getitem__)[2][0] > 0.5


def test_a_copy_of_a_validation_image_is_found_where_the_generator_saw_it(tmp_path) -> None:
    audited(tmp_path, None, Audit())
    seen = lesion(TRAINING + 1, CLASSES[(TRAINING + 1) % 2], SIDE)
    pool = [row(seen, "synthetic/of-validation", CLASSES[1], "train")]
    pool += [
        row(lesion(900 + n, CLASSES[n % 2], SIDE), f"synthetic/{n}", CLASSES[n % 2], "train")
        for n in range(8)
    ]
    table.write(pool, tmp_path / "pool", 64)
    for splits, rejected, held_out in (
        (["train"], [], OTHERS),
        (["train", "validation"], ["synthetic/of-validation"], 0),
    ):
        report, pairs, _ = audit.examine(tmp_path / "corpus", tmp_path / "pool", Audit(), splits)
        assert report["rejected"] == rejected
        assert report["held_out"]["images"] == held_out
        copy = pairs.set_index("image_id").loc["synthetic/of-validation"]
        assert (copy["original_id"] == f"isic2019/{TRAINING + 1:03d}") == bool(rejected)


def test_held_out_images_are_a_sample_by_hash() -> None:
    rows = pd.DataFrame({"image_id": [f"isic2019/{number:05d}" for number in range(3000)]})
    sample = set(image_sets.sample("held out", rows, image_sets.HELD_OUT)["image_id"])
    assert len(sample) == image_sets.HELD_OUT
    # Other images in the split take places, but no image gets one that had none.
    more = pd.concat([rows, rows + "-more"], ignore_index=True)
    again = image_sets.sample("held out", more, image_sets.HELD_OUT)
    assert set(again["image_id"]) & set(rows["image_id"]) <= sample


def test_a_network_that_does_not_see_a_copy_does_not_hide_it(tmp_path) -> None:
    """In features that are noise, the pixels still say that it is too near."""
    labels = [CLASSES[number % 2] for number in range(TRAINING)]
    images = [lesion(number, label, SIDE) for number, label in enumerate(labels)]
    corpus = [
        row(image, f"isic2019/{n:03d}", label, "train")
        for n, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    table.write(corpus, tmp_path / "corpus", 64)
    others = [encoded(images[7], 80), lesion(TRAINING, labels[0], SIDE)]
    pool = [row(image, f"synthetic/{n}", labels[0], "train") for n, image in enumerate(others)]
    table.write(pool, tmp_path / "pool", 64)
    noise = np.random.default_rng(0)
    trunk = trunks.Trunk("noise", 32, lambda x: (noise.normal(size=(len(x), 9)), None), None)
    training, synthetic = (
        image_sets.ImageSet(tmp_path / name, table.metadata(tmp_path / name), "train")
        for name in ("corpus", "pool")
    )
    points = features.extract(*training, trunk).points
    queries = features.under_symmetries([synthetic], trunk)[1]
    space = rejection.Space(trunk, points, queries)
    rules = rejection.judge(training, [synthetic], space, Audit(duplicate_correlation=1.0)).rules
    assert rules["too near"].tolist() == [True, False]
    assert rules["nearest_in_pixels_id"][0] == "isic2019/007"
    assert rules["ratio"].min() > 0.5 > rules["ratio_in_pixels"][0]


def test_turned_features_are_those_of_turned_images(tmp_path) -> None:
    pool = [row(lesion(n, CLASSES[0], SIDE), f"synthetic/{n}", CLASSES[0], "train") for n in (0, 1)]
    table.write(pool, tmp_path / "pool", 64)
    part = image_sets.ImageSet(tmp_path / "pool", table.metadata(tmp_path / "pool"), "train")
    (plain,), queries = features.under_symmetries([part], PIXELS)
    computed = features.extract(*part, PIXELS, symmetric=True).points
    assert np.array_equal(queries[np.arange(2)], computed)
    assert np.array_equal(plain.points, computed[:, 0])
    assert queries.size == computed.size
