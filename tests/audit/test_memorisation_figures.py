"""AuthPct and the C_T test against closed forms, and quantiles against scipy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dermaflux.audit.memorisation import distance_ratio, figures
from dermaflux.audit.memorisation.copying_test import cells_of, copying_test

MUTUAL = {1: 2 / 3, 2: 6 * np.pi / (8 * np.pi + 3 * np.sqrt(3))}
"""How often a point and its nearest one are each other's nearest, by dimension (Clark and Evans
1955, On some aspects of spatial pattern in biological populations)."""


@pytest.mark.parametrize("dimension", MUTUAL)
def test_new_points_are_as_authentic_as_geometry_lets_them_be(dimension: int) -> None:
    """On a circle and a torus, which have no border."""
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, (3000, dimension))
    points = np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    training, new = points[:1500], np.repeat(points[1500:, None], 8, axis=1)
    found = distance_ratio.nearest(
        new, training, lambda rows: np.repeat(training[rows, None], 8, axis=1)
    )
    assert found.authentic.mean() == pytest.approx(1 - MUTUAL[dimension], abs=0.035)
    copies = np.repeat(training[:50, None], 8, axis=1)
    assert not distance_ratio.nearest(
        copies, training, lambda rows: np.repeat(training[rows, None], 8, axis=1)
    ).authentic.any()


def test_c_t_of_one_cell_is_the_standardised_u_and_of_several_their_weighted_mean() -> None:
    draws = np.random.default_rng(1)
    ours, theirs = draws.exponential(1.0, 90), draws.exponential(1.5, 120)

    def z(first, second) -> float:
        test = stats.mannwhitneyu(
            first, second, alternative="less", method="asymptotic", use_continuity=False
        )
        return float(stats.norm.ppf(test.pvalue))

    whole = copying_test(ours, theirs)
    assert whole["value"] == pytest.approx(z(ours, theirs))
    assert whole["p"] == pytest.approx(stats.norm.cdf(whole["value"]))
    cells = np.arange(90) % 2, (np.arange(120) < 40).astype(int)
    parts = [(ours[cells[0] == cell], theirs[cells[1] == cell]) for cell in (0, 1)]
    expected = (80 * z(*parts[0]) + 40 * z(*parts[1])) / 120
    found = copying_test(ours, theirs, cells)
    assert found["value"] == pytest.approx(expected)
    # A weighted mean of two standard normal variables.
    assert found["p"] == pytest.approx(stats.norm.cdf(expected / (np.hypot(80, 40) / 120)))
    few = copying_test(ours[:19], theirs)
    assert few["value"] is None
    assert few["reason"] == (
        "needs 20 synthetic and held-out images in one cell, and there are 19 and 120 in all"
    )


@pytest.mark.parametrize("rate", [1.0, 2.5])
def test_the_interval_holds_what_other_images_would_give(rate: float) -> None:
    """Exponential distances: the synthetic one is farther with probability 1 / (1 + rate)."""
    draws, m, n = np.random.default_rng(3), 150, 100
    truth = (1 / (1 + rate) - 0.5) / np.sqrt((m + n + 1) / (12 * m * n))
    found = [
        copying_test(draws.exponential(1 / rate, m), draws.exponential(1.0, n)) for _ in range(800)
    ]
    held = np.mean([each["low"] <= truth <= each["high"] for each in found])
    assert 0.93 <= held <= 0.97
    called = np.mean([each["p"] < 0.05 for each in found])
    assert called > 0.99 if rate > 1 else 0.02 < called < 0.08


def test_cells_show_copying_that_the_whole_space_hides() -> None:
    """Two regions, one ten times as sparse: nearer in both, but more often in the sparse one."""
    draws = np.random.default_rng(3)
    middles = np.array([[0.0, 0.0], [50.0, 0.0]])

    def images(counts: tuple[int, int], scale: float) -> tuple[np.ndarray, np.ndarray]:
        region = np.repeat([0, 1], counts)
        points = middles[region] + draws.normal(0, 1, (len(region), 2))
        return points, np.where(region == 0, 1.0, 10.0) * draws.uniform(0.5, 1, len(region)) * scale

    training, _ = images((300, 300), 1.0)
    ours, distance = images((20, 180), 0.8)
    theirs, of_held_out = images((100, 100), 1.0)
    assert copying_test(distance, of_held_out)["value"] > 0
    cells = cells_of(training, ours, theirs)
    assert copying_test(distance, of_held_out, cells)["value"] < -3


def test_every_share_and_quantile_has_its_limits() -> None:
    draws = np.random.default_rng(4)

    def rules(count: int) -> pd.DataFrame:
        flags = {name: draws.random(count) < 0.3 for name in ("too near", "copy", "authentic")}
        return pd.DataFrame(
            {
                "distance": draws.exponential(1.0, count).round(1),
                "ratio": draws.exponential(1.0, count),
                "rejected": flags["too near"] | flags["copy"],
                **flags,
            }
        )

    pool, held_out = rules(200), rules(0)
    points = tuple(draws.normal(size=(count, 3)) for count in (50, 200, 0))
    report = figures.memorisation_figures(pool, held_out, points)
    assert (report["pool"]["images"], report["reference_images"]) == (200, 50)
    exact = stats.binomtest(int((pool["distance"] == 0).sum()), 200).proportion_ci(method="exact")
    equal = report["pool"]["equal"]
    assert (equal["low"], equal["high"]) == pytest.approx((exact.low, exact.high))
    for name, part in (("median", 0.5), ("quantile_05", 0.05)):
        limits = stats.quantile_test(pool["ratio"], p=part).confidence_interval(0.95)
        found = report["pool"]["ratio"][name]
        assert (found["low"], found["high"]) == (limits.low, limits.high)
    assert report["held_out"]["authentic"]["reason"] == "there are no images"
    assert report["held_out"]["ratio"]["median"]["reason"] == "no ratio is finite"
    assert report["copying_test"]["reason"].endswith("there are 200 and 0 in all")
