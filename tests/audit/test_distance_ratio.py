"""Nearest neighbours against brute force, and the ratio on cases with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dermaflux.audit.memorisation import distance_ratio, neighbours


def brute(queries, points, count, groups=None):
    distances = np.linalg.norm(queries[:, :, None] - points[None, None], axis=3).min(axis=1)
    if groups is not None:
        distances[groups[0][:, None] == groups[1]] = np.inf
    rows = np.argsort(distances, axis=1, kind="stable")[:, :count]
    return rows, np.take_along_axis(distances, rows, axis=1)


@pytest.mark.parametrize("excluded", [False, True])
@pytest.mark.parametrize("torch_device", [None, "cpu"])
def test_blocks_agree_with_brute_force(monkeypatch, excluded, torch_device) -> None:
    monkeypatch.setattr(neighbours, "_QUERIES", 7)
    monkeypatch.setattr(neighbours, "_GPU_QUERIES", 11)
    monkeypatch.setattr(neighbours, "_POINTS", 13)
    device = torch_device and torch.device(torch_device)
    monkeypatch.setattr(neighbours, "_gpu", lambda work: device)
    generator = np.random.default_rng(0)
    points = generator.normal(size=(50, 12)).astype(np.float32)
    queries = generator.normal(size=(20, 8, 12)).astype(np.float32)
    groups = (np.arange(20) % 9, np.arange(50) % 11) if excluded else None
    blocked = neighbours.neighbours(queries, points, 4, groups)
    rows, distances = brute(queries, points, 4, groups)
    assert np.array_equal(blocked[0], rows)
    assert blocked[1] == pytest.approx(distances)


def test_a_gpu_is_asked_for_only_where_the_work_is_worth_it(monkeypatch) -> None:
    monkeypatch.setenv("DERMAFLUX_DEVICE", "cpu")
    assert neighbours._gpu(10**15) is None
    monkeypatch.setattr("dermaflux.core.devices.automatic_device", lambda: torch.device("cuda"))
    assert neighbours._gpu(10**15) == torch.device("cuda")
    assert neighbours._gpu(10**9) is None


def test_of_equal_points_the_lowest_rows_are_nearest() -> None:
    generator = np.random.default_rng(1)
    points = np.repeat(generator.normal(size=(20, 12)), 3, axis=0).astype(np.float32)
    points = points[generator.permutation(60)]
    queries = generator.normal(size=(30, 8, 12)).astype(np.float32)
    queries[:10, 3] = points[:10]
    rows, _ = neighbours.neighbours(queries, points, 5)
    assert np.array_equal(rows, brute(queries, points, 5)[0])


def test_tiny_distances_survive_large_features() -> None:
    points = (1000 + np.arange(40, dtype=np.float32))[:, None] * np.ones((1, 64), np.float32)
    queries = np.repeat(points[:5, None], 8, axis=1) + np.float32(0.001)
    rows, distances = neighbours.neighbours(queries, points, 1)
    exact = np.linalg.norm(queries[:, 0].astype(float) - points[:5], axis=1)
    assert rows[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert distances[:, 0] == pytest.approx(exact, rel=1e-6)


def test_fewer_points_than_neighbours() -> None:
    points = np.eye(3, dtype=np.float32)
    queries = np.repeat(points[:, None], 8, axis=1)
    groups = (np.arange(3), np.arange(3))
    rows, distances = neighbours.neighbours(queries, points, 5, groups)
    assert rows[:, :2].tolist() == [[1, 2], [0, 2], [0, 1]]
    assert distances[:, :2] == pytest.approx(np.full((3, 2), np.sqrt(2)))
    assert np.isinf(distances[:, 2]).all()


def test_ratio_needs_a_scale() -> None:
    distance = np.array([1.0, 0.0, 2.0, 3.0])
    local = np.array([[2.0, 4.0], [0, 0], [0, 0], [np.inf, np.inf]])
    assert distance_ratio.ratios(distance, local).tolist() == [1 / 3, 0.0, np.inf, np.inf]
    assert distance_ratio.ratios(distance[:1], np.array([[2.0, np.inf]])).tolist() == [0.5]


def test_the_scale_is_measured_to_other_photographs_however_many_copies_there_are() -> None:
    """On a line: thirty copies at 0, of which half are known, then others at 10, 11, 12 ..."""
    places = np.r_[np.zeros(30), np.arange(10, 20)].astype(np.float32)
    points = places[:, None]
    queries = np.repeat(np.array([[[1.0]]], np.float32), 8, axis=1)
    groups = np.r_[np.zeros(15, int), np.arange(1, 26)]

    def same(rows, others, turns):
        return np.abs(places[rows][:, None] - places[others]) < 1

    def ratio(**known) -> float:
        symmetric = points[:, None].repeat(8, axis=1).__getitem__
        return float(distance_ratio.nearest(queries, points, symmetric, **known)[2][0])

    assert ratio() == ratio(groups=groups) == np.inf
    assert ratio(groups=groups, same=same) == pytest.approx(1 / np.mean([10, 11, 12, 13, 14]))
