"""Nearest neighbours against brute force, and the ratio on cases with a known answer."""

from __future__ import annotations

import numpy as np
import pytest

from dermaflux.audit import memorisation


def brute(queries, points, count, without=None):
    distances = np.linalg.norm(queries[:, :, None] - points[None, None], axis=3).min(axis=1)
    if without is not None:
        distances[np.arange(len(queries)), without] = np.inf
    rows = np.argsort(distances, axis=1, kind="stable")[:, :count]
    return rows, np.take_along_axis(distances, rows, axis=1)


@pytest.mark.parametrize("excluded", [False, True])
def test_blocks_agree_with_brute_force(monkeypatch, excluded) -> None:
    monkeypatch.setattr(memorisation, "_QUERIES", 7)
    monkeypatch.setattr(memorisation, "_POINTS", 13)
    generator = np.random.default_rng(0)
    points = generator.normal(size=(50, 12)).astype(np.float32)
    queries = generator.normal(size=(20, 8, 12)).astype(np.float32)
    without = np.arange(20) if excluded else None
    blocked = memorisation.neighbours(queries, points, 4, without)
    rows, distances = brute(queries, points, 4, without)
    assert np.array_equal(blocked[0], rows)
    assert blocked[1] == pytest.approx(distances)


def test_of_equal_points_the_lowest_rows_are_nearest() -> None:
    generator = np.random.default_rng(1)
    points = np.repeat(generator.normal(size=(20, 12)), 3, axis=0).astype(np.float32)
    points = points[generator.permutation(60)]
    queries = generator.normal(size=(30, 8, 12)).astype(np.float32)
    queries[:10, 3] = points[:10]
    rows, _ = memorisation.neighbours(queries, points, 5)
    assert np.array_equal(rows, brute(queries, points, 5)[0])


def test_tiny_distances_survive_large_features() -> None:
    points = (1000 + np.arange(40, dtype=np.float32))[:, None] * np.ones((1, 64), np.float32)
    queries = np.repeat(points[:5, None], 8, axis=1) + np.float32(0.001)
    rows, distances = memorisation.neighbours(queries, points, 1)
    exact = np.linalg.norm(queries[:, 0].astype(float) - points[:5], axis=1)
    assert rows[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert distances[:, 0] == pytest.approx(exact, rel=1e-6)


def test_fewer_points_than_neighbours() -> None:
    points = np.eye(3, dtype=np.float32)
    queries = np.repeat(points[:, None], 8, axis=1)
    rows, distances = memorisation.neighbours(queries, points, 5, without=np.arange(3))
    assert rows.tolist() == [[1, 2], [0, 2], [0, 1]]
    assert distances == pytest.approx(np.full((3, 2), np.sqrt(2)))


def test_ratio_needs_a_scale() -> None:
    distance, local = np.array([1.0, 0.0, 2.0]), np.array([[2.0, 4.0], [0, 0], [0, 0]])
    assert memorisation.ratios(distance, local).tolist() == [1 / 3, 0.0, np.inf]
