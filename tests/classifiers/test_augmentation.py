"""Augmentation against numpy and torchvision, image by image."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as reference

from dermaflux.classifiers.recipes.classification import augmentation


def test_three_coins_reach_each_symmetry_of_the_square_once() -> None:
    image = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(0))
    coins = torch.tensor(list(itertools.product([False, True], repeat=3))).T
    turned = augmentation.turn(image.expand(8, 3, 5, 5), *coins)
    square = image.permute(1, 2, 0).numpy()
    expected = [np.rot90(side, k) for side in (square, square[:, ::-1]) for k in range(4)]
    images = [image.permute(1, 2, 0).numpy() for image in turned]
    for symmetry in expected:
        assert sum(np.array_equal(symmetry, other) for other in images) == 1


def test_jitter_scales_as_torchvision_does() -> None:
    images = 0.4 + 0.1 * torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(3)
    factors = torch.tensor([0.9, 1.0, 1.1])
    bright = augmentation.jitter(images, factors, ones, ones)
    saturated = augmentation.jitter(images, ones, ones, factors)
    for index, factor in enumerate(factors.tolist()):
        expected = reference.adjust_brightness(images[index], factor)
        assert torch.allclose(bright[index], expected, atol=1e-6)
        expected = reference.adjust_saturation(images[index], factor)
        assert torch.allclose(saturated[index], expected, atol=2e-4)  # its luma has 4 digits
    contrast = augmentation.jitter(images, ones, factors, ones)
    assert torch.allclose(contrast.mean((2, 3)), images.mean((2, 3)), atol=1e-6)
    assert contrast.std((2, 3)) == pytest.approx(images.std((2, 3)) * factors[:, None], abs=1e-6)


def smooth(count: int, side: int) -> torch.Tensor:
    """Images without detail of a pixel's size, on which two ways to interpolate agree."""
    noise = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.interpolate(noise, size=(side, side), mode="bicubic").clamp(0, 1)


def test_crop_shows_the_rectangle_that_torchvision_crops() -> None:
    images, side = smooth(2, 64), 64
    top, left, height, width = 10, 20, 40, 32
    result = augmentation.crop(
        images,
        torch.full((2,), width / side),
        torch.full((2,), height / side),
        torch.full((2,), (2 * left + width) / side - 1),
        torch.full((2,), (2 * top + height) / side - 1),
        torch.zeros(2),
    )
    expected = reference.resized_crop(images, top, left, height, width, [side, side])
    inner = (..., slice(2, -2), slice(2, -2))  # at the edges ours sees the pixels beyond
    assert torch.allclose(result[inner], expected[inner], atol=1e-5)


def test_crop_turns_as_torchvision_does() -> None:
    images = smooth(2, 64)
    degrees, ones, zeros = torch.tensor([30.0, -45.0]), torch.ones(2), torch.zeros(2)
    result = augmentation.crop(images, ones, ones, zeros, zeros, degrees.deg2rad())
    for index, angle in enumerate(degrees.tolist()):
        turned = reference.rotate(images[index], angle, reference.InterpolationMode.BILINEAR)
        inner = (..., slice(20, -20), slice(20, -20))
        assert torch.allclose(result[index][inner], turned[inner], atol=1e-4)
    assert (result.amax(dim=1) > 0).all(), "outside lies the mirror image, not black"


def test_blur_is_torchvisions_with_a_deviation_per_image() -> None:
    images = torch.rand(3, 3, 12, 9, generator=torch.Generator().manual_seed(0))
    deviations = torch.tensor([0.1, 0.8, 1.5])
    result = augmentation.blur(images, deviations)
    for index, sigma in enumerate(deviations.tolist()):
        expected = reference.gaussian_blur(images[index], [5, 5], [sigma, sigma])
        assert torch.allclose(result[index], expected, atol=1e-6)


def test_cutout_fills_the_square_that_torchvision_erases() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x, y, side = torch.tensor([3, 0]), torch.tensor([11, 5]), torch.tensor([5, 0])
    result = augmentation.cutout(images, x, y, side)
    mean = images[0].mean((1, 2)).view(3, 1, 1).expand(3, 5, 5)
    assert torch.allclose(result[0], reference.erase(images[0], 11, 3, 5, 5, mean))
    assert torch.equal(result[1], images[1])


def test_strong_changes_every_image_in_its_own_way_and_keeps_the_range() -> None:
    images = smooth(1, 32).expand(64, 3, 32, 32)
    result = augmentation.augment(images, "strong", torch.Generator().manual_seed(0))
    assert result.shape == images.shape
    assert ((result - 0.5).abs() <= 0.5 + 1e-6).all()
    assert len(torch.unique(result.flatten(1), dim=0)) == 64
    centre = (..., slice(12, 20), slice(12, 20))
    shift = (result[centre].mean((1, 2, 3)) - images[centre].mean((1, 2, 3))).abs()
    assert shift.max() < 0.35, "a lesion in the middle stays recognisable"


@pytest.mark.parametrize("how", ["flips-colour", "strong"])
def test_the_generator_alone_decides(how) -> None:
    images = torch.rand(16, 3, 6, 6)
    first, again, other = (
        augmentation.augment(images, how, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert augmentation.augment(images, "none", torch.Generator()) is images
