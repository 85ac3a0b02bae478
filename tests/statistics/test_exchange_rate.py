"""The exchange rate: its interval against paired t-tests, its bounds, its words, its coverage."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dermaflux.errors import InputError
from dermaflux.statistics import effects
from dermaflux.statistics.exchange_rate import Amount, ExchangeRate, exchange_rate
from dermaflux.statistics.seed_means import SeedMean

SIZES = (120, 240, 480, 960)
NONE = np.empty(0)


def expected(images: float) -> float:
    return float(0.898 - 1.56 * images**-0.32)


def cells(
    equivalent: float,
    seeds: int = 5,
    noise: float = 0.005,
    sizes: tuple[int, ...] = SIZES,
    image_noise: float = 0.0,
) -> tuple[dict[int, SeedMean], SeedMean]:
    """Cells whose means over seeds and resamples are exactly those of the law."""
    random = np.random.default_rng(5)

    def cell(mean: float) -> SeedMean:
        values = random.normal(0, noise, seeds)
        resampled = random.normal(mean, image_noise, 400) if image_noise else NONE
        return SeedMean(values - values.mean() + mean, resampled)

    return {size: cell(expected(size)) for size in sizes}, cell(expected(equivalent))


def rate(equivalent: float, confidence: float = 0.95, **given: object) -> ExchangeRate:
    curve, mixture = cells(equivalent, **given)  # type: ignore[arg-type]
    return exchange_rate(curve, mixture, 240, 420, confidence)


@pytest.mark.parametrize("truth", [150.0, 240.0, 400.0, 900.0])
def test_without_noise_the_truth_is_found_in_a_narrow_interval(truth: float) -> None:
    found = rate(truth, noise=1e-5, image_noise=1e-5)
    assert found.equivalent.value == pytest.approx(truth, rel=1e-4)
    assert found.equivalent.bound == ""
    assert found.equivalent.low is not None
    assert found.equivalent.high is not None
    assert truth * 0.999 < found.equivalent.low < truth < found.equivalent.high < truth * 1.001
    assert found.worth.value == pytest.approx(truth - 240, abs=0.1)
    assert found.each.value == pytest.approx((truth - 240) / 420, abs=1e-3)
    assert found.each.low == pytest.approx((found.equivalent.low - 240) / 420)


@pytest.mark.parametrize(("truth", "side"), [(300.0, "low"), (190.0, "high")])
def test_a_measured_size_is_an_end_of_the_interval_at_the_p_value_of_its_own_difference(
    truth: float, side: str
) -> None:
    """With three sizes the curve goes through their means, so 240 is judged by its own seeds."""
    curve, mixture = cells(truth, noise=0.01, sizes=(60, 240, 960))
    p = stats.ttest_rel(mixture.values, curve[240].values).pvalue
    found = exchange_rate(curve, mixture, 240, 420, 1 - p).equivalent
    assert getattr(found, side) == pytest.approx(240, rel=1e-3)
    random = np.random.default_rng(7)
    drawn = random.normal(0, 0.01, (4, 5, 200)) + random.normal(0, 0.01, (4, 1, 200))
    *sizes, last = drawn
    curve = {
        size: SeedMean(curve[size].values, resamples)
        for size, resamples in zip(curve, sizes, strict=True)
    }
    difference = mixture.values - curve[240].values
    p = effects.effect(difference, last - drawn[1], 0.95, cautious=True).p
    found = exchange_rate(curve, SeedMean(mixture.values, last), 240, 420, 1 - p).equivalent
    assert getattr(found, side) == pytest.approx(240, rel=1e-3)


def test_what_is_better_in_every_cell_does_not_widen_the_interval() -> None:
    """Neither a lucky seed nor a test set that is easy for all."""
    curve, mixture = cells(400, image_noise=0.003)
    seeds = np.array([-0.05, 0.02, 0.03, 0.06, -0.06])
    images = np.random.default_rng(8).normal(0, 0.05, 400)

    def lift(cell: SeedMean) -> SeedMean:
        return SeedMean(cell.values + seeds, cell.resampled + images)

    lifted = {size: lift(cell) for size, cell in curve.items()}
    alone = exchange_rate(curve, mixture, 240, 420, 0.95).equivalent
    shared = exchange_rate(lifted, lift(mixture), 240, 420, 0.95).equivalent
    assert alone.high is not None
    assert (shared.low, shared.high) == pytest.approx((alone.low, alone.high), rel=1e-4)
    assert exchange_rate(curve, lift(mixture), 240, 420, 0.95).equivalent.high is None


def test_test_images_and_further_comparisons_widen_the_interval() -> None:
    narrow, images = rate(400).equivalent, rate(400, image_noise=0.005).equivalent
    curve, mixture = cells(400)
    several = exchange_rate(curve, mixture, 240, 420, 0.95, comparisons=4).equivalent
    for wide in (images, several):
        assert (wide.low or 0) < (narrow.low or 0)
        assert (wide.high or 1e9) > (narrow.high or 1e9)


@pytest.mark.parametrize(
    ("truth", "amount"),
    [
        (20000.0, Amount(960, 960, None, "at least")),
        (50.0, Amount(120, None, 120, "at most")),
    ],
)
def test_beyond_the_sizes_measured_the_answer_is_a_bound(truth: float, amount: Amount) -> None:
    found = rate(truth, noise=0.001).equivalent
    assert (found.value, found.bound) == (amount.value, amount.bound)
    assert (found.low, found.high) == (amount.low, amount.high)


def test_just_beyond_the_largest_size_the_interval_reaches_back_into_them() -> None:
    found = rate(1000).equivalent
    assert (found.value, found.bound, found.high) == (960, "at least", None)
    assert found.low is not None
    assert 480 < found.low < 960


def test_one_seed_speaks_of_test_images_only_and_neither_has_no_limits() -> None:
    images = rate(400, seeds=1, image_noise=0.005).equivalent
    assert images.low is not None
    assert images.high is not None
    neither = rate(400, seeds=1).equivalent
    assert (round(neither.value), neither.low, neither.high) == (400, None, None)


@pytest.mark.parametrize(
    ("equivalent", "words"),
    [
        (
            Amount(275, 220, 350),
            "420 synthetic images were worth 35 real ones (-20 to 110): 0.08 each (-0.05 to 0.26)",
        ),
        (
            Amount(960, 275, None, "at least"),
            "420 synthetic images were worth at least 720 real ones (35 or more): "
            "at least 1.71 each (0.08 or more)",
        ),
        (
            Amount(120, None, 240, "at most"),
            "420 synthetic images were worth at most -120 real ones (0 or less): "
            "at most -0.29 each (0.00 or less)",
        ),
        (
            Amount(239.8, None, None),
            "What 420 synthetic images were worth in real ones cannot be told: every number "
            "measured, from -120 to 720, is possible, and so are others",
        ),
    ],
)
def test_the_sentence(equivalent: Amount, words: str) -> None:
    curve = rate(400).curve
    assert ExchangeRate(240, 420, curve, equivalent).sentence == words


def test_other_seeds_and_curves_that_are_none_are_refused() -> None:
    curve, mixture = cells(400)
    fewer = curve | {480: SeedMean(curve[480].values[:3], NONE)}
    with pytest.raises(InputError, match="3 seeds with 480 real images and 5 of the mixture"):
        exchange_rate(fewer, mixture, 240, 420, 0.95)
    with pytest.raises(InputError, match="3 or more numbers of real images, and there are 2"):
        exchange_rate({size: curve[size] for size in (240, 480)}, mixture, 240, 420, 0.95)
    with pytest.raises(InputError, match="there are 0"):
        exchange_rate({}, mixture, 240, 420, 0.95)
    falling = {size: SeedMean(1 - cell.values, NONE) for size, cell in curve.items()}
    with pytest.raises(InputError, match="does not rise"):
        exchange_rate(falling, mixture, 240, 420, 0.95)


BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "exchange_rate.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "trials"),
    [
        ({"worth": 0, "seeds": 3, "seed_noise": 0.03}, 1000),
        ({"worth": 160, "seeds": 5, "seed_noise": 0.02}, 1000),
        ({"worth": 0, "seeds": 3, "scores": True}, 1000),
    ],
)
def test_the_interval_holds_the_truth_in_95_of_100_runs(
    setting: dict[str, float], trials: int
) -> None:
    """On simulated runs; benchmarks/results/exchange_rate.json has all settings."""
    benchmark = runpy.run_path(str(BENCHMARK))
    shares = benchmark["coverage"](benchmark["Setting"](**setting), trials)
    assert 0.93 <= shares["holds"] <= 0.97, shares
    assert shares["above"] <= 0.05, shares
    assert shares["refused"] <= 0.01, shares
