from __future__ import annotations

import statistics

import pytest

from dermaflux.tracking.seed_runs import means


def test_means_over_seeds_are_those_of_the_standard_library() -> None:
    seeds = [
        {"AUC": 0.81, "AUC_low": 0.7, "loss": 0.5, "system/cpu": 90.0},
        {"AUC": 0.84, "AUC_high": 0.9, "loss": 0.3, "extra": 1.0},
        {"AUC": 0.90, "AUC_low": 0.8, "loss": 0.1},
    ]
    values = [seed["AUC"] for seed in seeds]
    assert means(seeds, "AUC") == pytest.approx(
        {
            "AUC": statistics.mean(values),
            "AUC_sd": statistics.stdev(values),
            "loss": 0.3,
            "seeds": 3.0,
        }
    )


def test_one_seed_has_no_deviation_and_none_has_no_mean() -> None:
    assert means([{"AUC": 0.8}], "AUC") == {"AUC": 0.8, "seeds": 1.0}
    assert means([], "AUC") == {"seeds": 0.0}
