"""Rows of the audit: which images each compares, what is said where a figure is not given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_lesions import lesion, row
from scipy.stats import binomtest

from dermaflux import paths
from dermaflux.audit import audit, interval
from dermaflux.audit.fidelity import comparison, mmd
from dermaflux.audit.fidelity.comparison import FIGURES, Images
from dermaflux.audit.fidelity.frechet import frechet_distance
from dermaflux.core import table
from dermaflux.params import Audit

SIZE = 12


def drawn(
    seed: int, classes: dict[str, int], shift: float = 0.0, logits: bool = True, **columns
) -> Images:
    """Images with normal features."""
    generator = np.random.default_rng(seed)
    labels = [label for label, count in classes.items() for _ in range(count)]
    rows = pd.DataFrame({"label": labels, "source": "isic2019", "skin_tone": None,
                         "rejected": False, **columns})  # fmt: skip
    points = generator.normal(shift, 1, (len(rows), SIZE))
    return Images(rows, points, points[:, :5] if logits else None)


def compared(pool: Images, real: Images) -> dict[tuple[str, str], dict]:
    pairs = {"train": comparison.pair(pool, real)}
    return {(each["group"], each["name"]): each for each in comparison.rows(pairs)}


def test_a_row_is_of_the_images_that_it_names() -> None:
    sources = ["isic2019"] * 150 + ["ddi"] * 150
    tones = ["I", "V"] * 150
    real = drawn(0, {"benign": 200, "malignant": 100}, source=sources, skin_tone=tones)
    pool = drawn(1, {"benign": 110, "malignant": 130}, 0.3)
    pool.rows.loc[:5, "rejected"] = True
    found = compared(pool, real)
    assert [*found] == [
        ("all", "all"), ("label", "benign"), ("label", "malignant"),
        ("source", "ddi"), ("source", "isic2019"), ("skin_tone", "I"), ("skin_tone", "V"),
    ]  # fmt: skip
    counts = {key: (each["images"], each["reference_images"]) for key, each in found.items()}
    assert [*counts.values()] == [(240, 300), (110, 200), (130, 100), *[(240, 150)] * 4]
    parts = {
        ("all", "all"): (pool.points, real.points),
        ("label", "malignant"): (pool.points[110:], real.points[200:]),
        ("source", "ddi"): (pool.points, real.points[150:]),
        ("skin_tone", "V"): (pool.points, real.points[1::2]),
    }
    for key, (ours, theirs) in parts.items():
        assert found[key]["fid"] == pytest.approx(frechet_distance(ours, theirs)._asdict())
        kid = mmd.kid(ours, theirs, seed=0)[0]
        assert found[key]["kid"]["value"] == pytest.approx(kid.mean)
        width = found[key]["kid"]["high"] - found[key]["kid"]["low"]
        assert width == pytest.approx(2 * 1.96 * kid.error)
    memorised = found["label", "benign"]["memorised"]
    limits = binomtest(6, 110).proportion_ci(0.95)
    assert memorised == pytest.approx(
        {"count": 6, "value": 6 / 110, "low": limits.low, "high": limits.high}
    )
    assert found["label", "malignant"]["memorised"]["value"] == 0


def test_tones_asked_for_in_pairs_are_compared_with_single_types() -> None:
    tones = ["V", "VI", "V-VI", "II"] * 5
    real = drawn(0, {"benign": 20}, skin_tone=tones)
    pool = drawn(1, {"benign": 8})
    pool.rows["skin_tone"] = ["V-VI"] * 5 + ["I"] * 3
    found = compared(pool, real)
    counts = {
        name: (row["images"], row["reference_images"])
        for (group, name), row in found.items()
        if group == "skin_tone"
    }
    assert counts == {"I-II": (3, 5), "V-VI": (5, 15)}


def test_more_images_than_are_compared_at_once_give_the_same_row(monkeypatch) -> None:
    """Where every image is taken, with and without the products that rows share."""
    pool, real = drawn(1, {"benign": 120}, 0.3), drawn(0, {"benign": 130})
    row, whole = compared(pool, real)["all", "all"], comparison.products_of
    monkeypatch.setattr(comparison, "NEAREST_OF", 110)
    monkeypatch.setattr(comparison, "_sample", lambda points: points)
    asked = []
    monkeypatch.setattr(
        comparison, "products_of", lambda *sides: asked.append(len(sides[0])) or whole(*sides)
    )
    apart = compared(pool, real)["all", "all"]
    assert set(asked) == {120}
    assert {name: apart[name] for name in FIGURES} == {
        name: pytest.approx(row[name]) for name in FIGURES
    }


def test_the_floor_is_of_real_images_in_place_of_synthetic_ones() -> None:
    real, pool = drawn(0, {"benign": 500}), drawn(1, {"benign": 150}, 1.0)
    found = compared(pool, real)["all", "all"]
    floor = found["floor"]
    assert (floor["images"], floor["reference_images"]) == (150, 350)
    assert floor["fid"]["value"] < 0.2 * found["fid"]["value"]
    assert abs(floor["kid"]["value"]) < 0.1 * found["kid"]["value"]
    assert floor["recall"]["value"] > found["recall"]["value"] + 0.2
    # It knows nothing of the pool, but for the number of its images.
    assert compared(drawn(2, {"benign": 150}, 3.0), real)["all", "all"]["floor"] == floor


def test_what_is_not_given_says_why_and_the_rest_stands() -> None:
    real = drawn(0, {"benign": 300, "malignant": 150}, logits=False)
    found = compared(drawn(1, {"benign": 120, "malignant": 2}, logits=False), real)
    few = found["label", "malignant"]
    assert few["kid"] == {
        "value": None, "low": None, "high": None,
        "reason": "needs 4 images on either side, and there are 2 and 150",
    }  # fmt: skip
    assert "needs 100 images" in few["fid"]["reason"]
    assert few["memorised"]["value"] == 0
    whole = found["all", "all"]
    assert whole["inception_score"]["reason"] == "the trunk gives no class scores"
    assert [name for name in FIGURES if whole[name]["value"] is None] == ["inception_score"]
    small = compared(drawn(1, {"benign": 30}), drawn(0, {"benign": 60}))["all", "all"]
    assert [name for name in FIGURES if small[name]["value"] is not None] == ["kid"]
    missing = compared(drawn(1, {"benign": 120}), real)["label", "malignant"]
    assert missing["images"] == 0
    assert missing["memorised"]["reason"] == "there are no synthetic images"
    of_classes = comparison.kid_of_classes(
        comparison.pair(drawn(1, {"benign": 120, "malignant": 2}), real)
    )
    assert "reason" in of_classes["classes"]["malignant"]
    assert of_classes["kid"] == of_classes["classes"]["benign"]["kid"]


@pytest.mark.parametrize("count", [0, 1, 7, 20])
def test_a_share_has_the_exact_limits(count: int) -> None:
    limits = binomtest(count, 20).proportion_ci(0.95)
    assert interval.share(count, 20) == pytest.approx((count / 20, limits.low, limits.high))


def test_the_test_split_decides_no_rejection(tmp_path: Path, monkeypatch) -> None:
    """Without test images the pool is rejected as before, a copy of one of them included."""
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    images = [lesion(number, "benign", 64) for number in range(60)]
    labels = ["benign", "malignant"] * 30
    train = [row(images[n], f"isic2019/{n:03d}", labels[n], "train") for n in range(24)]
    held = [row(images[n], f"isic2019/{n:03d}", labels[n], "validation") for n in range(24, 30)]
    # A copy of the training image 3, one of the test image 40, and others.
    pool = [row(images[n], f"synthetic/{n:03d}", labels[n], "train") for n in (3, 40, 50, 51, 52)]
    table.write(pool, paths.SYNTHETIC, 64)
    # The same bytes have distance 0; with so few neighbours others may be near by chance.
    settings = Audit(duplicate_correlation=0.55, memorisation_ratio=0.1)
    results = []
    for test in (range(36, 44), range(0)):
        rows = [row(images[n], f"isic2019/{n:03d}", labels[n], "test") for n in test]
        corpus = tmp_path / f"corpus-{test.start}"
        table.write([*train, *held, *rows], corpus, 64)
        results.append(audit.examine(corpus, paths.SYNTHETIC, settings))
    (first, pairs, rows), (report, other_pairs, _) = results
    assert first["rejected"] == ["synthetic/003"]
    pd.testing.assert_frame_equal(other_pairs, pairs)
    beside = ("fidelity", "control", "separability", "coverage", "artefacts")  # of both references
    assert {name: value for name, value in report.items() if name not in beside} == {
        name: value for name, value in first.items() if name not in beside
    }
    assert report["fidelity"]["train"] == first["fidelity"]["train"]
    none = report["fidelity"]["test"]
    assert none["reference_images"] == 0
    assert none["kid"]["reason"] == "needs 4 images on either side, and there are 5 and 0"
    assert first["fidelity"]["test"]["reference_images"] == 8
    assert {each["reference"] for each in rows} == {"train", "test"}
