from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image, ImageDraw, ImageOps
from scipy.stats import chi

from dermaflux import phantom
from dermaflux.classifiers.model import network as supervised
from dermaflux.params import Model
from dermaflux.registry import ood

SIDE = 64
PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "coffee.png", "coins.png", "grass.png",
    "hubble_deep_field.jpg", "page.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
"""Of the scikit-image wheel; nothing is downloaded."""


def lesions(stream: str, count: int) -> np.ndarray:
    parameters = [phantom.draw(index, stream, None) for index in range(count)]
    return np.stack([phantom.render(lesion, SIDE, SIDE) for lesion in parameters])


def generated() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    page = Image.new("RGB", (256, 256), "white")
    pen = ImageDraw.Draw(page)
    for line in range(4, 250, 12):
        pen.text((6, line), "not a lesion but a page of text " * 2, fill="black")
    ramp = np.linspace(0, 255, SIDE)
    return {
        "noise": rng.integers(0, 256, (SIDE, SIDE, 3)),
        "grey": np.full((SIDE, SIDE, 3), 128),
        "skin-coloured": np.tile([205, 160, 140], (SIDE, SIDE, 1)),
        "gradient": np.stack([np.tile(ramp, (SIDE, 1))] * 3, axis=2),
        "checkerboard": np.tile(np.kron([[0, 1], [1, 0]], np.ones((8, 8))), (4, 4))[..., None]
        * np.full(3, 255),
        "text": np.asarray(page.resize((SIDE, SIDE))),
    }


def photographs() -> list[np.ndarray]:
    folder = Path(str(skimage.__file__)).parent / "data"
    images = [Image.open(folder / name).convert("RGB") for name in PHOTOGRAPHS]
    return [np.asarray(ImageOps.fit(image, (SIDE, SIDE))) for image in images]


def test_lesions_pass_and_other_images_are_flagged() -> None:
    model = Model(
        name="vit_tiny_patch16_224",
        learning_rate=1e-3,
        options={"depth": 1, "embed_dim": 24, "num_heads": 2},
    )
    config = supervised.configure(model, SIDE)
    torch.manual_seed(0)
    network = supervised.build(config)
    training, validation, unseen = (
        ood.views(network, config, lesions(stream, count))
        for stream, count in (("train", 300), ("validation", 200), ("test", 200))
    )
    detector = ood.fit(training, validation, 0.95)
    assert detector.is_ood(validation).mean() == pytest.approx(0.05, abs=0.01)
    # Three standard errors of a fraction of 200 around a limit estimated from 200 others.
    assert detector.is_ood(unseen).mean() < 0.05 + 3 * (2 * 0.05 * 0.95 / 200) ** 0.5
    for name, pixels in generated().items():
        views = ood.views(network, config, pixels.astype(np.uint8)[None])
        assert detector.is_ood(views)[0], name
    views = ood.views(network, config, np.stack(photographs()))
    assert detector.is_ood(views).mean() >= 0.9


def test_distances_of_a_gaussian_have_the_chi_distribution(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 3))
    samples = [rng.normal(size=(40_000, 3)) @ mixing for _ in range(2)]
    detector = ood.fit([samples[0], samples[0]], [samples[1], samples[1]], 0.9)
    # The Mahalanobis distance of a D-dimensional Gaussian has the chi distribution.
    assert detector.scales == pytest.approx((chi(3).ppf(0.9),) * 2, rel=0.02)
    assert detector.threshold == pytest.approx(1.0, abs=1e-3)
    ood.write(detector, tmp_path / ood.FILE)
    again = ood.find(tmp_path)
    assert again is not None
    np.testing.assert_array_equal(again.distances(samples), detector.distances(samples))
