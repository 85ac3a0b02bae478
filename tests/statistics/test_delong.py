"""The DeLong test against published digits, its own definition, and simulated lesions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dermaflux.metrics import binary
from dermaflux.statistics import bootstrap, delong

# Outcome (poor 1), WFNS grade and S100 beta (0.01 ug/l) of 113 patients with subarachnoid
# haemorrhage, the worked example of Robin et al. 2011 (BMC Bioinformatics 12:77).
OUTCOME = (
    "00001101001011001011101000000000100110110000000001100010001010011101101111000110"
    "100000010000000000001111110001000"
)
WFNS = (
    "11113254125255125225211112121134214541425511241125521251222151125214524414121421"
    "232421451154221113125225552445111"
)
S100B = (
    "13 14 10 4 13 10 47 16 18 10 12 10 44 71 4 8 49 4 7 33 9 9 7 11 7 17 7 11 13 19 5 16 41 "
    "14 34 35 48 9 96 25 50 46 16 7 43 45 11 8 9 86 52 8 6 13 207 10 14 15 7 6 77 5 9 30 3 9 "
    "4 23 70 9 27 71 8 26 8 16 9 13 10 8 11 33 11 28 7 10 32 22 7 5 24 38 10 15 8 14 10 7 4 "
    "19 56 14 58 32 82 74 15 47 17 44 15 50 48 "
)


def test_published_example() -> None:
    """Digits of pROC 1.18 for `roc.test`, `var` and `cov` on these patients."""
    labels, wfns = (np.array([int(digit) for digit in text]) for text in (OUTCOME, WFNS))
    s100b = np.array([float(value) for value in S100B.split()])
    aucs, matrix = delong.covariance(labels, np.stack([wfns, s100b]))
    assert aucs == pytest.approx([0.8236788617886179, 0.7313685636856369], rel=1e-12)
    assert matrix[0, 0] == pytest.approx(0.00146991470882363, rel=1e-12)
    assert matrix[1, 1] == pytest.approx(0.00266868245717244, rel=1e-12)
    assert matrix[0, 1] == pytest.approx(0.00119615567376754, rel=1e-12)
    test = delong.compare(labels, wfns, s100b)
    assert test.difference / test.standard_error == pytest.approx(2.20898359144091, rel=1e-12)
    assert test.p == pytest.approx(0.0271757822291882, rel=1e-10)


def by_definition(labels, scores, groups):
    """Structural components from all pairs, O(M N), and Obuchowski's sums over clusters."""
    pairs = [
        (np.sign(row[labels == 1][:, None] - row[labels == 0][None, :]) + 1) / 2 for row in scores
    ]
    area = [pair.mean() for pair in pairs]
    diseased, healthy = groups[labels == 1], groups[labels == 0]
    count, names = pairs[0].shape, np.unique(groups)
    tens = [[pair.mean(1)[diseased == g].sum() for g in names] for pair in pairs]
    ones = [[pair.mean(0)[healthy == g].sum() for g in names] for pair in pairs]
    matrix = np.zeros((len(scores), len(scores)))
    sizes = [np.array([(side == g).sum() for g in names]) for side in (diseased, healthy)]
    clusters = [(size > 0).sum() for size in sizes]
    for i in range(len(scores)):
        for j in range(len(scores)):
            ten = [np.array(tens[k]) - sizes[0] * area[k] for k in (i, j)]
            one = [np.array(ones[k]) - sizes[1] * area[k] for k in (i, j)]
            s10 = clusters[0] / (clusters[0] - 1) / count[0] * (ten[0] @ ten[1])
            s01 = clusters[1] / (clusters[1] - 1) / count[1] * (one[0] @ one[1])
            s11 = len(names) / (len(names) - 1) * (ten[0] @ one[1] + ten[1] @ one[0])
            matrix[i, j] = s10 / count[0] + s01 / count[1] + s11 / count[0] / count[1]
    return np.array(area), matrix


@pytest.mark.parametrize("grouping", ["images", "lesions", "patients"])
def test_covariance_agrees_with_the_definition(grouping: str) -> None:
    generator = np.random.default_rng(4)
    labels = (generator.random(130) < 0.4).astype(int)
    scores = generator.normal(labels, 1, (3, 130)).round(1)  # with ties
    groups = {
        "images": np.arange(130),
        "lesions": generator.integers(0, 20, 130) + 50 * labels,
        "patients": generator.integers(0, 30, 130),  # a patient may have both kinds
    }[grouping]
    estimate = delong.covariance(labels, scores, groups)
    expected = by_definition(labels, scores, groups)
    assert estimate[0] == pytest.approx(expected[0], abs=1e-14)
    assert estimate[1] == pytest.approx(expected[1], abs=1e-16)
    if grouping == "images":
        assert estimate[1] == pytest.approx(delong.covariance(labels, scores)[1], abs=1e-18)


def test_scores_that_rank_alike_do_not_differ() -> None:
    labels, scores = np.array([0, 1, 0, 1, 1]), np.array([0.1, 0.4, 0.5, 0.8, 0.9])
    assert delong.compare(labels, scores, scores**3) == delong.Comparison(0.0, 0.0, 1.0)
    alone = delong.compare(np.array([0, 0, 1]), scores[:3], scores[2::-1])
    assert np.isnan(alone.p)  # one malignant image has no variance


def test_p_is_uniform_for_lesions_of_several_images_and_agrees_with_the_bootstrap() -> None:
    """Two equally good classifiers: 5 % of all tests fall below 0.05, more if lesions are ignored.

    Both share the effect of the lesion, so images of one lesion have similar scores in both.
    """
    generator = np.random.default_rng(8)
    lesions, repeats = 40, 4
    labels = np.repeat((np.arange(2 * lesions) < lesions).astype(int), repeats)
    members = np.repeat(np.arange(2 * lesions), repeats)
    clustered, ignored = [], []
    for _ in range(1000):
        shared = np.repeat(generator.normal(0, 1, (2, 2 * lesions)), repeats, axis=1)
        first, second = labels + shared + generator.normal(0, 0.5, (2, len(labels)))
        clustered.append(delong.compare(labels, first, second, members).p)
        ignored.append(delong.compare(labels, first, second).p)
    assert 0.03 <= np.mean(np.array(clustered) < 0.05) <= 0.075
    assert stats.kstest(clustered, "uniform").pvalue > 0.001
    assert np.mean(np.array(ignored) < 0.05) > 0.2
    weights = bootstrap.resamples(labels, members, 1000, seed=0)
    differences = [binary.bootstrap_auc(labels, scores, weights) for scores in (first, second)]
    spread = np.std(differences[0] - differences[1])
    test = delong.compare(labels, first, second, members)
    assert test.standard_error == pytest.approx(spread, rel=0.1)
