"""The Frechet distance against scipy's matrix root, torch-fidelity, a closed form and chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from dermaflux.audit.fidelity.frechet import frechet_distance, frechet_distance_of_products
from dermaflux.audit.fidelity.products import products_of

# Fewer and more images than features, on either side and on both.
SIZES = [(60, 80, 10), (30, 40, 100), (30, 300, 64), (300, 30, 64)]


def samples(count: int, others: int, size: int, seed: int = 0):
    generator = np.random.default_rng(seed)
    scales = np.linspace(0.2, 2, size)
    return generator.normal(0.2, 1, (count, size)) * scales, generator.normal(0, 1, (others, size))


@pytest.mark.parametrize("sizes", SIZES)
def test_it_is_that_of_two_other_routes(sizes: tuple[int, int, int]) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    ours, real = samples(*sizes)
    value = frechet_distance(ours, real).value
    of_ours, of_real = np.cov(ours, rowvar=False), np.cov(real, rowvar=False)
    root = np.trace(sqrtm(of_ours @ of_real)).real
    shift = np.sum((ours.mean(axis=0) - real.mean(axis=0)) ** 2)
    assert value == pytest.approx(shift + np.trace(of_ours + of_real) - 2 * root, rel=1e-3)
    statistics = [fid_features_to_statistics(torch.from_numpy(rows)) for rows in (ours, real)]
    reference = fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    assert value == pytest.approx(reference, rel=1e-6)
    assert frechet_distance(real, ours).value == pytest.approx(value)
    other_way = frechet_distance_of_products(products_of(ours, real))
    assert other_way == pytest.approx(frechet_distance(ours, real))


def test_features_that_never_change_and_equal_sets() -> None:
    ours, real = samples(50, 70, 8)
    silent = [np.hstack([rows, np.ones((len(rows), 3))]) for rows in (ours, real)]
    assert frechet_distance(*silent) == pytest.approx(frechet_distance(ours, real))
    assert frechet_distance(real, real).value == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("sizes", SIZES)
def test_the_error_is_the_slope_of_the_distance_in_each_image(sizes) -> None:
    """Against a finite difference: an image counted a little more than the others."""
    ours, real = samples(*sizes)

    def distance(weights) -> float:
        moments = []
        for rows, weight in zip((ours, real), weights, strict=True):
            weight = weight / weight.sum()
            mean = weight @ rows
            centred = (rows - mean) * np.sqrt(weight * len(rows) / (len(rows) - 1))[:, None]
            moments.append((mean, centred))
        (mean, first), (other, second) = moments
        root = np.linalg.svd(first @ second.T, compute_uv=False).sum()
        return np.sum((mean - other) ** 2) + np.sum(first**2) + np.sum(second**2) - 2 * root

    even = [np.ones(len(rows)) for rows in (ours, real)]
    middle = distance(even)
    variance, step = 0.0, 1e-5
    for side, rows in enumerate((ours, real)):
        slopes = []
        for image in range(len(rows)):
            weights = [each.copy() for each in even]
            weights[side][image] += step
            slopes.append((distance(weights) - middle) / step * len(rows))
        variance += np.var(slopes, ddof=1) / len(rows)
    value, low, high = frechet_distance(ours, real)
    assert value == pytest.approx(middle)
    # Symmetric around the root, whose slope is that of the distance over twice the root.
    for limit, sign in ((low, -1), (high, 1)):
        root = np.sqrt(middle) + sign * 1.96 * np.sqrt(variance / middle) / 2
        assert np.sqrt(limit) == pytest.approx(root, rel=1e-4)


def test_the_interval_holds_the_mean_distance_of_as_many_images() -> None:
    for size in (3, 150):  # more images than features, and fewer
        found = [frechet_distance(*samples(100, 120, size, seed)) for seed in range(120)]
        mean = np.mean([each.value for each in found])
        held = np.mean([each.low <= mean <= each.high for each in found])
        assert 0.92 <= held <= 1, size
