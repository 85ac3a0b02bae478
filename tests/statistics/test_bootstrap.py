"""The cluster bootstrap: what it resamples together, and the coverage of its intervals."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from dermaflux.metrics import binary
from dermaflux.statistics import bootstrap


def test_groups_join_lesions_and_duplicates_but_not_missing_ids() -> None:
    rows = pd.DataFrame(
        {
            "source": ["a", "a", "b", "b", "b", "a"],
            "lesion_id": ["x", "x", "x", None, None, None],
            "duplicate_group": [None, "d", None, "d", None, None],
        }
    )
    numbers = bootstrap.groups(rows)
    assert numbers[0] == numbers[1] == numbers[3]  # lesion x of a, then duplicate group d
    assert len({numbers[0], numbers[2], numbers[4], numbers[5]}) == 4


def test_groups_move_together_and_classes_keep_their_number_of_groups() -> None:
    generator = np.random.default_rng(1)
    labels = (np.arange(200) < 60).astype(int)
    members = generator.integers(0, 40, 200) + 100 * labels
    weights = bootstrap.resamples(labels, members, 300, seed=0)
    for group in np.unique(members):
        of_group = weights[:, members == group]
        assert (of_group == of_group[:, :1]).all()
    for label in (0, 1):
        firsts = np.unique(members[labels == label], return_index=True)[1]
        one_per_group = weights[:, labels == label][:, firsts]
        assert (one_per_group.sum(axis=1) == len(firsts)).all()
    assert weights.mean() == pytest.approx(1, abs=0.02)


def test_single_images_give_the_plain_bootstrap() -> None:
    # The mean of n draws has bootstrap variance (population variance) / n exactly.
    generator = np.random.default_rng(2)
    labels, values = np.r_[np.zeros(50, int), np.ones(50, int)], generator.normal(size=100)
    weights = bootstrap.resamples(labels, np.arange(100), 20_000, seed=0)
    means = weights[:, :50] @ values[:50] / 50
    assert means.var() == pytest.approx(values[:50].var() / 50, rel=0.05)


def test_a_thousand_resamples_of_the_papers_test_set_take_under_two_seconds() -> None:
    generator = np.random.default_rng(0)
    labels = (np.arange(9191) < 4341).astype(int)
    scores = 1 / (1 + np.exp(-generator.normal(labels, 1)))
    began = time.process_time()
    weights = bootstrap.resamples(labels, np.arange(9191), 1000, seed=0)
    binary.figures(labels, scores, 0.5, [0.9, 0.95], weights)
    assert time.process_time() - began < 4  # loaded CI machines; 1 to 2 s on a quiet core


@pytest.mark.slow
def test_intervals_cover_the_true_auc_when_lesions_have_several_images() -> None:
    """Binormal scores with a shared lesion effect: the true AUC is Phi(d / sqrt 2) = 0.76."""
    generator = np.random.default_rng(3)
    lesions, repeats, trials = 60, 3, 400
    labels = np.repeat(np.r_[np.zeros(lesions, int), np.ones(lesions, int)], repeats)
    members = np.repeat(np.arange(2 * lesions), repeats)
    truth = 0.760250013
    covered = {"clustered": 0, "ignored": 0}
    for trial in range(trials):
        effect = np.repeat(generator.normal(0, np.sqrt(0.7), 2 * lesions), repeats)
        scores = labels + effect + generator.normal(0, np.sqrt(0.3), len(labels))
        for name, groups in (("clustered", members), ("ignored", np.arange(len(labels)))):
            weights = bootstrap.resamples(labels, groups, 400, seed=trial)
            values = binary.bootstrap_auc(labels, scores, weights)
            low, high = bootstrap.interval(values, 0.95)
            covered[name] += low <= truth <= high
    assert 0.915 <= covered["clustered"] / trials <= 0.975
    assert covered["ignored"] / trials < 0.88  # images are not independent


def test_a_centred_interval_contains_the_error_that_resampling_raises() -> None:
    generator = np.random.default_rng(5)
    values = 0.02 + np.abs(generator.normal(0.01, 0.005, 1000))  # all above the estimate itself
    low, high = bootstrap.centred_interval(0.02, values, 0.95)
    plain = bootstrap.interval(values, 0.95)
    assert plain[0] > 0.02
    assert low < 0.02 < high
    assert high - low == pytest.approx(plain[1] - plain[0])
    assert bootstrap.centred_interval(0.0, values, 0.95)[0] == 0


def test_each_of_many_classes_keeps_its_number_of_groups() -> None:
    labels = np.repeat([0, 1, 2], [5, 7, 11])
    weights = bootstrap.resamples(labels, np.arange(23), 50, seed=1)
    for name, count in enumerate([5, 7, 11]):
        assert (weights[:, labels == name].sum(axis=1) == count).all()


@pytest.mark.parametrize("lesions", [1, 10, 300])
def test_ten_of_ten_lesions_are_not_certainty(lesions: int) -> None:
    """Closed form of Clopper and Pearson: n of n successes have probability p^n."""
    low, high = bootstrap.unanimous_interval(1.0, lesions, 0.95)
    assert low**lesions == pytest.approx(0.025)
    assert high == 1
    assert bootstrap.unanimous_interval(0.0, lesions, 0.95) == pytest.approx((0, 1 - low))
