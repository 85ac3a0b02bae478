"""The learning curve against exact laws, a search over all exponents and refits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from dermaflux.errors import InputError
from dermaflux.statistics import learning_curve
from dermaflux.statistics.learning_curve import EXPONENTS

SIZES = [120, 240, 480, 960]


@pytest.mark.parametrize(
    "law", [(0.898, 1.56, 0.32), (0.85, 9.0, 0.8), (0.99, 1.0, 0.15), (0.75, 500.0, 1.6)]
)
@pytest.mark.parametrize("sizes", [SIZES, [100, 500, 2500], [30, 60, 100, 1000, 8000]])
def test_an_exact_law_is_found_and_inverted(
    law: tuple[float, float, float], sizes: list[int]
) -> None:
    asymptote, coefficient, exponent = law
    aucs = asymptote - coefficient * np.array(sizes, float) ** -exponent
    curve = learning_curve.fit(sizes[::-1], aucs[::-1])
    assert curve.sizes == tuple(sizes)
    assert curve.auc(np.array(sizes)) == pytest.approx(aucs, abs=1e-7)
    assert curve.asymptote == pytest.approx(asymptote, abs=1e-4)
    assert curve.exponent == pytest.approx(exponent, rel=1e-2)
    assert curve.images(float(curve.auc(333.0))) == pytest.approx(333)
    assert curve.images(curve.asymptote) == math.inf


def test_no_other_curve_within_the_bounds_fits_better() -> None:
    """Against a linear fit for each of many exponents, on noisy and often crooked curves."""
    random = np.random.default_rng(0)
    images = np.array(SIZES, float)
    for _ in range(20):
        aucs = np.clip([0.6, 0.68, 0.74, 0.79] + random.normal(0, 0.04, 4), 0, 1)
        try:
            curve = learning_curve.fit(SIZES, aucs)
        except InputError:
            assert aucs[0] > aucs[-1]
            continue
        assert curve.coefficient > 0
        assert curve.asymptote <= 1
        assert EXPONENTS[0] <= curve.exponent <= EXPONENTS[1]
        assert (np.diff(curve.auc(np.arange(120, 961))) > 0).all()
        costs = []
        for exponent in np.geomspace(*EXPONENTS, 40):
            power = (images / 120) ** -exponent
            columns = np.column_stack([np.ones(4), -power])
            costs.append(lsq_linear(columns, aucs, ([-np.inf, 0], [1, np.inf])).cost)
        assert ((curve.auc(images) - aucs) ** 2).sum() / 2 <= min(costs) + 1e-9


@pytest.mark.parametrize("sizes", [SIZES, SIZES[:3], [50, 100, 200, 400, 800, 1600]])
def test_the_weights_are_the_derivatives_of_the_fit(sizes: list[int]) -> None:
    aucs = 0.898 - 1.56 * np.array(sizes, float) ** -0.32
    between = np.array([150.0, 300.0, 450.0])
    curve = learning_curve.fit(sizes, aucs)
    weights = curve.weights(between)
    assert weights.sum(axis=1) == pytest.approx(1)
    for column, step in zip(weights.T, 1e-5 * np.eye(len(sizes)), strict=True):
        rise = learning_curve.fit(sizes, aucs + step).auc(between) - learning_curve.fit(
            sizes, aucs - step
        ).auc(between)
        assert rise / 2e-5 == pytest.approx(column, abs=2e-3)


@pytest.mark.parametrize(
    ("sizes", "aucs", "words"),
    [
        ([120, 240], [0.6, 0.7], "3 or more numbers of real images, and there are 2"),
        ([], [], "there are 0"),
        (SIZES, [0.8, 0.75, 0.7, 0.69], "does not rise .*0.800 at 120, .*0.690 at 960"),
        (SIZES, [0.7, 0.7, 0.7, 0.7], "does not rise"),
        (SIZES, [0.995, 0.997, 0.999, 1.0], r"0\.9950 or more .* ceiling \(0\.995"),
    ],
)
def test_what_is_no_learning_curve_is_refused(
    sizes: list[int], aucs: list[float], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        learning_curve.fit(sizes, np.array(aucs))


def test_a_curve_that_reaches_its_ceiling_is_one() -> None:
    assert learning_curve.fit(SIZES, np.array([0.98, 0.99, 0.996, 0.998])).asymptote <= 1


def test_two_aucs_for_one_size_and_an_auc_that_is_no_number_are_mistakes_of_the_caller() -> None:
    with pytest.raises(ValueError, match="one finite AUC for each size"):
        learning_curve.fit([120, 120, 240, 480], np.array([0.6, 0.6, 0.7, 0.8]))
    with pytest.raises(ValueError, match="one finite AUC for each size"):
        learning_curve.fit(SIZES, np.array([0.6, math.nan, 0.7, 0.8]))
