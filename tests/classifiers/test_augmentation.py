"""Augmentation against numpy and torchvision, image by image."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as reference

from dermaflux.classifiers import augmentation


def test_three_coins_reach_each_symmetry_of_the_square_once() -> None:
    image = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(0))
    coins = torch.tensor(list(itertools.product([False, True], repeat=3))).T
    turned = augmentation.turn(image.expand(8, 3, 5, 5), *coins)
    square = image.permute(1, 2, 0).numpy()
    expected = [np.rot90(side, k) for side in (square, square[:, ::-1]) for k in range(4)]
    found = [picture.permute(1, 2, 0).numpy() for picture in turned]
    for one in expected:
        assert sum(np.array_equal(one, other) for other in found) == 1


def test_jitter_scales_as_torchvision_does() -> None:
    images = 0.4 + 0.1 * torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    one = torch.ones(3)
    factors = torch.tensor([0.9, 1.0, 1.1])
    bright = augmentation.jitter(images, factors, one, one)
    saturated = augmentation.jitter(images, one, one, factors)
    for index, factor in enumerate(factors.tolist()):
        expected = reference.adjust_brightness(images[index], factor)
        assert torch.allclose(bright[index], expected, atol=1e-6)
        expected = reference.adjust_saturation(images[index], factor)
        assert torch.allclose(saturated[index], expected, atol=2e-4)  # its luma has 4 digits
    contrast = augmentation.jitter(images, one, factors, one)
    assert torch.allclose(contrast.mean((2, 3)), images.mean((2, 3)), atol=1e-6)
    assert contrast.std((2, 3)) == pytest.approx(images.std((2, 3)) * factors[:, None], abs=1e-6)


def test_the_generator_alone_decides() -> None:
    images = torch.rand(16, 3, 6, 6)
    first, again, other = (
        augmentation.augment(images, "flips-colour", torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert augmentation.augment(images, "none", torch.Generator()) is images
