"""Precision, recall, density and coverage against prdc, torch-fidelity and the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dermaflux.audit.fidelity import manifold
from dermaflux.audit.fidelity.manifold import manifold_figures
from dermaflux.audit.fidelity.products import products_of


def figures(ours, real):
    return manifold_figures(*products_of(ours, real).squared_distances())


def samples(count: int, others: int, size: int, seed: int = 0):
    generator = np.random.default_rng(seed)
    return generator.normal(0.1, 1, (count, size)), generator.normal(0, 1, (others, size))


@pytest.mark.parametrize("sizes", [(60, 80, 3), (50, 120, 40), (120, 50, 200)])
def test_they_are_those_of_prdc_and_torch_fidelity(sizes: tuple[int, int, int]) -> None:
    from prdc import compute_prdc
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    ours, real = samples(*sizes)
    found = {name: interval.value for name, interval in figures(ours, real).items()}
    theirs = compute_prdc(real, ours, manifold.NEIGHBOURS)
    assert found.pop("density") == pytest.approx(theirs.pop("density"), rel=1e-15)
    assert found == theirs
    assert 0 < found["precision"] < 1
    assert 0 < found["recall"] < 1
    rows = (torch.from_numpy(each) for each in (ours, real))
    shares = calculate_precision_recall_full(*rows, neighborhood=manifold.NEIGHBOURS)
    assert (found["precision"], found["recall"]) == pytest.approx(shares)


def test_what_the_jackknife_leaves_out_is_as_if_it_had_not_been_there() -> None:
    """Also where most neighbours of an image are left out, as copies of one image are."""
    ours, real = samples(40, 60, 5)
    real[:30] = real[0] + 1e-3 * real[:30]
    of_ours, between, of_real = products_of(ours, real).squared_distances()
    balls = manifold._Balls(of_ours), manifold._Balls(of_real)
    for side, group in ((0, np.arange(7)), (1, np.arange(1, 29))):
        left = [np.delete(each, group, 0) if at == side else each
                for at, each in enumerate((ours, real))]  # fmt: skip
        expected = [interval.value for interval in figures(*left).values()]
        assert manifold._without(between, balls, side, group) == pytest.approx(expected)


def test_intervals_hold_the_mean_figure_and_are_no_wider_than_they_must_be() -> None:
    found = [figures(*samples(60, 90, 8, seed)) for seed in range(120)]
    for name in manifold.NAMES:
        values, lows, highs = np.array([each[name] for each in found]).T
        assert np.mean((lows <= values.mean()) & (values.mean() <= highs)) >= 0.93, name
        assert np.mean(highs - lows) < 2 * 3.92 * values.std(), name


def test_figures_at_a_limit_have_an_interval_too() -> None:
    ours, real = samples(40, 60, 8)
    apart = figures(ours + 100, real)
    assert apart["precision"] == pytest.approx((0, 0, 1 - 0.025 ** (1 / 40)))
    copies = figures(real, real)
    assert [each.value for each in copies.values()][:2] == [1, 1]
    assert copies["recall"].low <= 0.025 ** (1 / 60)
    assert copies["coverage"].high == 1
