"""Scalar products of the features of two sets of images, from which every figure follows. Pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dermaflux.core.arrays import Array


class Products(NamedTuple):
    """x.y in float64."""

    ours: Array
    """(N, N) of N images with each other."""
    between: Array
    """(N, M)."""
    theirs: Array
    """(M, M) of M others with each other."""

    def where(self, ours: Array, theirs: Array) -> Products:
        """Of a part of either set, by numbers of rows."""
        return Products(
            self.ours[np.ix_(ours, ours)],
            self.between[np.ix_(ours, theirs)],
            self.theirs[np.ix_(theirs, theirs)],
        )

    def of_theirs(self, part: Array, rest: Array) -> Products:
        """Of two parts of the second set."""
        parts = ((part, part), (part, rest), (rest, rest))
        return Products(*(self.theirs[np.ix_(*each)] for each in parts))

    def squared_distances(self) -> tuple[Array, Array, Array]:
        """|x - y|^2 in place of x.y, not below 0."""
        left, right = np.diag(self.ours), np.diag(self.theirs)
        lengths = ((left, left), (left, right), (right, right))
        ours, between, theirs = (
            np.maximum(first[:, None] + second - 2 * products, 0)
            for (first, second), products in zip(lengths, self, strict=True)
        )
        return ours, between, theirs


def products_of(ours: Array, theirs: Array) -> Products:
    """Of features (N, D) and (M, D)."""
    x, y = ours.astype(np.float64), theirs.astype(np.float64)
    return Products(x @ x.T, x @ y.T, y @ y.T)
