"""Which candidates are kept: those of whose class a classifier is least certain. Pure.

The criterion is the entropy of the prediction, as in Deliberate Practice (Askari-Hemmat et al.
2025, arXiv 2502.15588). There the entropy also guides the sampler and the classifier is trained on;
here candidates are sampled as without choosing, then pruned once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.special import entr

from dermaflux.core.arrays import Array


def entropy(log_probabilities: Array) -> float:
    """Entropy of a prediction as a share of the largest possible: 0 is sure, 1 undecided.

    `log_probabilities`: (K,) natural logarithms of K >= 2 probabilities that add up to 1.
    """
    return float(entr(np.exp(log_probabilities)).sum() / np.log(len(log_probabilities)))


def keep(classes: Sequence[str], uncertainty: Sequence[float], images: int) -> list[int]:
    """Indices, ascending, of the `images` candidates that are kept of all N.

    `classes` (N,): what each candidate is asked to show. Kept are as many of each class as the
    first `images` candidates hold, which is the pool without choosing; of these the most uncertain
    ones, and of equal ones the first.
    """
    kept: list[int] = []
    for name, count in Counter(classes[:images]).items():
        members = [index for index, other in enumerate(classes) if other == name]
        members.sort(key=lambda index: (-uncertainty[index], index))
        kept += members[:count]
    return sorted(kept)
