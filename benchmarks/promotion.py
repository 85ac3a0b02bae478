"""How often `promote` is wrong when none of its candidates is better, and what it detects.

Candidates and champion are equal: the same separation of the classes, errors that correlate because
all find the same lesions difficult. Then one candidate is made better. Three ways to test the best
one: as if it had been the only candidate, with the interval for all of them at once (`promote`),
and chosen on one half of the lesions and tested on the other.

    python benchmarks/promotion.py [--simulations 1000] [--candidates 20]
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.special import expit
from scipy.stats import binomtest, norm

from dermaflux.core.arrays import Array
from dermaflux.metrics import binary
from dermaflux.registry import promotion_test
from dermaflux.statistics import bootstrap

CONFIDENCE, SPECIFICITY = 0.95, 0.9
WAYS = ("as if alone", "all at once", "two halves")


def scored(rng: np.random.Generator, labels: Array, given: argparse.Namespace) -> Array:
    """Probabilities (1 + K, N) of the champion and the candidates, two images of each lesion."""
    lesions = np.arange(len(labels)) // 2
    shared = rng.normal(size=lesions[-1] + 1)[lesions]
    own = rng.normal(size=(given.candidates + 1, len(labels)))
    spread = np.sqrt(given.correlation) * shared + np.sqrt(1 - given.correlation) * own
    # Of two normal distributions with variance 1 and this distance.
    return given.distance * labels + spread


def decisions(
    labels: Array, logits: Array, seed: int, resamples: int
) -> dict[str, tuple[int, bool, bool]]:
    """Way -> the candidate chosen, whether its interval is above 0, and whether it is promoted."""
    lesions = np.arange(len(labels)) // 2
    halves = [lesions % 2 == half for half in (0, 1)]
    everything = np.ones(len(labels), bool)
    results = {}
    for way in WAYS:
        chosen_on, tested_on = halves if way == "two halves" else (everything, everything)
        aucs = [binary.auc(labels[chosen_on], row[chosen_on]) for row in logits[1:]]
        order = np.argsort(aucs)[::-1]
        rows = expit(logits[1:][order if way == "all at once" else order[:1]][:, tested_on])
        truth, members = labels[tested_on], lesions[tested_on]
        comparison = promotion_test.compare(
            truth,
            rows,
            expit(logits[0, tested_on]),
            bootstrap.resamples(truth, members, resamples, seed),
            SPECIFICITY,
            CONFIDENCE,
        )
        passed, _ = promotion_test.decide(comparison, SPECIFICITY, 0.0)
        results[way] = (int(order[0]), comparison.auc.low > 0, passed)
    return results


def main() -> None:
    """Simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--malignant", type=int, default=60)
    parser.add_argument("--benign", type=int, default=140)
    parser.add_argument("--distance", type=float, default=1.5)
    parser.add_argument("--correlation", type=float, default=0.7)
    parser.add_argument("--gains", type=float, nargs="+", default=[0.0, 0.03, 0.05, 0.08])
    parser.add_argument("--resamples", type=int, default=300)
    given = parser.parse_args()
    labels = np.repeat([0, 1], [given.benign, given.malignant])
    auc = norm.cdf(given.distance / np.sqrt(2))
    print(f"{given.candidates} candidates, AUC {auc:.3f}, {given.benign} benign, ", end="")
    print(f"{given.malignant} malignant images, correlation {given.correlation:g}")
    for gain in given.gains:
        rng = np.random.default_rng(0)
        further = np.sqrt(2) * norm.ppf(auc + gain) - given.distance
        above = dict.fromkeys(WAYS, 0)
        promoted = dict.fromkeys(WAYS, 0)
        for number in range(given.simulations):
            logits = scored(rng, labels, given)
            logits[1] += further * labels
            for way, (chosen, clear, passed) in decisions(
                labels, logits, number, given.resamples
            ).items():
                right = gain == 0 or chosen == 0
                above[way] += clear and right
                promoted[way] += passed and right
        print(f"AUC of one candidate {gain:+.2f}" if gain else "none better")
        for way in WAYS:
            interval = binomtest(above[way], given.simulations).proportion_ci(0.95)
            print(
                f"  {way:12} interval above 0: {above[way] / given.simulations:6.1%} "
                f"[{interval.low:.1%}, {interval.high:.1%}], promoted "
                f"{promoted[way] / given.simulations:6.1%}"
            )


if __name__ == "__main__":
    main()
