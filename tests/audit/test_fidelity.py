"""KID against the definition as a double sum, a closed form and its own unbiasedness."""

from __future__ import annotations

import numpy as np
import pytest

from dermaflux.audit import fidelity


def test_estimate_is_the_double_sum_of_the_definition() -> None:
    generator = np.random.default_rng(0)
    ours, real = generator.normal(0.3, 1, (7, 5)), generator.normal(0, 1, (6, 5))

    def k(x, y):
        return (sum(a * b for a, b in zip(x, y, strict=True)) / 5 + 1) ** 3

    def within(rows):
        size = len(rows)
        pairs = [(i, j) for i in range(size) for j in range(size) if i != j]
        return sum(k(rows[i], rows[j]) for i, j in pairs) / (size * (size - 1))

    between = sum(k(x, y) for x in ours for y in real) / 42
    expected = within(ours) + within(real) - 2 * between
    found = fidelity.unbiased_mmd2(
        fidelity.kernel(ours, ours), fidelity.kernel(real, real), fidelity.kernel(ours, real)
    )
    assert found == pytest.approx(expected)


def test_equal_laws_average_to_zero_and_a_shift_to_its_closed_form() -> None:
    # In one dimension E k(x, y) = E (xy + 1)^3 = m3 m3' + 3 m2 m2' + 3 m1 m1' + 1 in raw moments.
    def mean_kernel(a: float, b: float) -> float:
        one, other = ([m**3 + 3 * m, m**2 + 1, m] for m in (a, b))
        return one[0] * other[0] + 3 * one[1] * other[1] + 3 * one[2] * other[2] + 1

    shift = 0.5
    expected = mean_kernel(shift, shift) + mean_kernel(0, 0) - 2 * mean_kernel(shift, 0)
    generator = np.random.default_rng(1)
    equal, moved = [], []
    for _ in range(300):
        real, other = generator.normal(0, 1, (2, 80, 1))
        for into, rows in ((equal, other), (moved, other + shift)):
            kernels = (fidelity.kernel(a, b) for a, b in ((rows, rows), (real, real), (rows, real)))
            into.append(fidelity.unbiased_mmd2(*kernels))
    assert abs(np.mean(equal)) < 3 * np.std(equal) / np.sqrt(300)
    assert abs(np.mean(moved) - expected) < 3 * np.std(moved) / np.sqrt(300)


def test_the_floor_of_a_perfect_generator_is_its_kid() -> None:
    generator = np.random.default_rng(2)
    real, same = generator.normal(0, 1, (2, 400, 16))
    far = generator.normal(1, 1, (400, 16))
    found, floor = fidelity.kid(same, real, seed=0)
    assert abs(found.mean - floor.mean) < 0.05
    assert fidelity.kid(far, real, seed=0)[0].mean > 10 * max(found.std, floor.std)
    assert found.subset_size == 200
    assert fidelity.kid(same, real, seed=0) == (found, floor)
