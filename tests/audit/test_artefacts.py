"""Planted artefacts are found, each by its own figure, and nothing is found where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, stats

from dermaflux.audit.faithfulness import artefacts
from dermaflux.audit.faithfulness.artefacts import compare, marks

COUNT, SIDE = 100, 64


def textures(seed: int) -> np.ndarray:
    """Smooth colour noise with fine grain: uint8 (COUNT, SIDE, SIDE, 3)."""
    draw = np.random.default_rng(seed)
    coarse = ndimage.gaussian_filter(draw.normal(size=(COUNT, SIDE, SIDE, 3)), (0, 3, 3, 0))
    return np.clip(128 + 200 * coarse + draw.normal(0, 3, coarse.shape), 1, 254).astype(np.uint8)


def figures(images: np.ndarray) -> list[dict[str, float]]:
    return [marks(image) for image in images]


REAL, CLEAN = figures(textures(0)), textures(1)


def planted(name: str) -> np.ndarray:
    images = CLEAN.astype(int)
    if name == "grid_8":  # brighter every second block, as of a decoder that sees its blocks
        blocks = (np.arange(SIDE) // 8) % 2
        images += (6 * blocks)[None, :, None, None] + (6 * blocks)[None, None, :, None]
    elif name == "saturation":
        images[:, 20:30, 20:30] = 255
    elif name == "border":
        images[:, :, 0] += 40
    return np.clip(images, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["grid_8", "saturation", "border"])
def test_a_planted_artefact_is_told_by_its_own_figure(name: str) -> None:
    rows = compare(figures(planted(name)), REAL)
    assert rows[name]["low"] > 0.9
    assert rows[name]["images"] == rows[name]["reference_images"] == COUNT
    assert rows[name]["synthetic"]["low"] > rows[name]["real"]["high"]
    if name != "grid_8":  # whose jumps are those of 4 and, in part, of 16 pixels as well
        others = {other for other in rows if other != name}
        assert all(rows[other]["low"] < 0.62 for other in others), rows


def test_clean_images_are_like_real_ones_and_too_few_are_said() -> None:
    rows = compare(figures(CLEAN), REAL)
    assert {*rows} == {"grid_4", "grid_8", "saturation", "border"}  # 64 pixels are 4 periods of 16
    assert all(row["low"] <= 0.5 <= row["high"] for row in rows.values()), rows
    few = compare(figures(CLEAN[:7]), REAL)["grid_8"]
    assert few["reason"] == "needs 100 images on either side, and there are 7 and 100"
    assert compare([], REAL)["border"]["value"] is None
    flat = marks(np.full((SIDE, SIDE, 3), 100, np.uint8))
    assert flat["border"] == flat["grid_8"] == flat["saturation"] == 0


def test_the_interval_of_the_median_is_that_of_order_statistics() -> None:
    rows = compare(*[[{"x": value} for value in np.arange(100.0)]] * 2)
    low, high = rows["x"]["real"]["low"], rows["x"]["real"]["high"]
    # The 40th and the 61st of 100, which hold the median with 96.5 %.
    assert stats.binom.cdf(60, 100, 0.5) - stats.binom.cdf(39, 100, 0.5) > 0.95
    assert (low, high) == (39, 60)


def test_repeats_are_counted() -> None:
    found = artefacts.repeats(["a", "b", "a", "c"], np.array([1, 0.6, 1, 0.1]), 0.55)
    assert (found["count"], found["identical"], found["images"]) == (3, 2, 4)
    assert found["value"] == 0.75
    assert artefacts.repeats([], np.empty(0), 0.5)["reason"] == "there are no synthetic images"
