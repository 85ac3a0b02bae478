"""Precision, recall, density and coverage: k-nearest-neighbour manifolds of two sets. Pure.

A set's manifold is the union of balls around its images, each reaching to the k-th nearest other
image of the set (k = 3, as in the reference implementations).

- precision: share of synthetic images in the manifold of the real ones; recall: share of real
  images in that of the synthetic ones (Kynkaanniemi et al. 2019, Improved Precision and Recall
  Metric, equations 1 and 2). These are not the precision and recall of Sajjadi et al. 2018, curves
  over clusters, which VAP-Diffusion cites without saying how it computed its own.
- density: in how many balls of real images a synthetic one lies, over k, on average, which may
  exceed 1; coverage: share of real images whose ball holds a synthetic image (Naeem et al. 2020,
  Reliable Fidelity and Diversity Metrics, equations 5 and 6).

A ball holds its border, so an exact copy is always inside. Squared distances come as matrices.
"""

from __future__ import annotations

import numpy as np

from dermaflux.audit.interval import NORMAL, Interval, share
from dermaflux.core.arrays import Array

NEIGHBOURS = 3
NAMES = ("precision", "recall", "density", "coverage")
_GROUPS = 20  # of images that the jackknife leaves out together
_SPARE = 16  # neighbours remembered: one of 20 in each group, so that seldom fewer than 3 are left


def manifold_figures(synthetic: Array, between: Array, real: Array) -> dict[str, Interval]:
    """The four figures from squared distances (N, N), (N, M) and (M, M); N and M at least 20.

    Intervals are over other images of both kinds: the jackknife that leaves out one of 20 random
    groups of synthetic images, and one of real images, at a time. A share is also never surer than
    that of as many independent images (Clopper and Pearson 1934).
    """
    balls = _Balls(synthetic), _Balls(real)
    values = _figures(between, balls[0].radii(), balls[1].radii())
    variance = np.zeros(len(NAMES))
    for side, ball in enumerate(balls):
        left_out = [
            _without(between, balls, side, group) for group in _groups(len(ball), seed=side)
        ]
        variance += (_GROUPS - 1) ** 2 / _GROUPS * np.var(left_out, axis=0, ddof=1)
    counts = dict(zip(NAMES, (*between.shape, None, between.shape[1]), strict=True))
    return {
        name: _interval(value, NORMAL * float(error), counts[name])
        for name, value, error in zip(NAMES, values, np.sqrt(variance), strict=True)
    }


class _Balls:
    """How far it is from each image of a set to its k-th nearest other one."""

    def __init__(self, within: Array) -> None:
        self._within = within
        others = within.copy()
        np.fill_diagonal(others, np.inf)
        count = min(_SPARE, len(within) - 1)
        rows = np.argpartition(others, count - 1, axis=1)[:, :count]
        near = np.take_along_axis(others, rows, axis=1)
        order = np.argsort(near, axis=1, kind="stable")
        self._rows = np.take_along_axis(rows, order, axis=1)
        self._near = np.take_along_axis(near, order, axis=1)

    def __len__(self) -> int:
        return len(self._within)

    def radii(self, kept: Array | None = None) -> Array:
        """Squared (N,); with `kept` (N,) bool, among those images, of those images alone."""
        if kept is None:
            return np.asarray(self._near[:, NEIGHBOURS - 1])
        left = kept[self._rows[kept]].cumsum(axis=1)
        result: Array = self._near[
            kept, (left < NEIGHBOURS).sum(axis=1).clip(max=left.shape[1] - 1)
        ]
        for row in np.flatnonzero(left[:, -1] < NEIGHBOURS):
            distances = self._within[np.flatnonzero(kept)[row], kept]
            result[row] = np.partition(distances, NEIGHBOURS)[NEIGHBOURS]  # itself is the nearest
        return result


def _figures(between: Array, synthetic: Array, real: Array) -> tuple[float, float, float, float]:
    """`NAMES` from squared distances (N, M) and squared radii (N,) and (M,)."""
    in_real = between <= real
    hit, recalled = in_real.sum(axis=1), (between <= synthetic[:, None]).any(axis=0)
    covered = in_real.any(axis=0)
    return (
        float((hit > 0).mean()),
        float(recalled.mean()),
        float(hit.mean()) / NEIGHBOURS,
        float(covered.mean()),
    )


def _without(
    between: Array, balls: tuple[_Balls, _Balls], side: int, group: Array
) -> tuple[float, float, float, float]:
    """The figures without the rows `group` of one set."""
    kept = np.ones(len(balls[side]), bool)
    kept[group] = False
    radii = [ball.radii(kept if index == side else None) for index, ball in enumerate(balls)]
    return _figures(between[kept] if side == 0 else between[:, kept], *radii)


def _groups(count: int, seed: int) -> list[Array]:
    """Rows 0 to count - 1 in 20 random groups of almost equal size."""
    order = np.random.Generator(np.random.PCG64(seed)).permutation(count)
    return np.array_split(order, _GROUPS)


def _interval(value: float, half: float, count: int | None) -> Interval:
    """Not below 0 and, for a share of `count` images, not above 1 nor narrower than the exact."""
    low, high = max(value - half, 0.0), value + half
    if count is None:
        return Interval(value, low, high)
    exact = share(round(value * count), count)
    return Interval(value, min(low, exact.low), max(min(high, 1.0), exact.high))
