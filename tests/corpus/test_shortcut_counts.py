"""What source and scale alone tell, from the counts of `ingest`."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dermaflux.corpus import shortcuts


def test_the_auc_of_categories_is_that_of_their_malignant_shares() -> None:
    sizes = np.random.default_rng(0).integers(0, 60, (30, 2))
    sizes[:4] = [(10, 5), (20, 10), (0, 7), (0, 0)]  # equal shares, one class alone, nothing
    counts = {f"source {number}": tuple(map(int, pair)) for number, pair in enumerate(sizes)}
    shares = sizes[:, 1] / np.maximum(sizes.sum(axis=1), 1)
    expected = roc_auc_score([0] * 30 + [1] * 30, [*shares, *shares], sample_weight=sizes.T.ravel())
    assert shortcuts.auc(counts) == pytest.approx(expected, abs=1e-12)
    assert shortcuts.auc({"alone": (3, 0)}) is None


def test_source_and_scale_are_counted_over_each_other_and_warned_of() -> None:
    kept = {
        "isic2024": {"benign": {"128": 80}, "malignant": {"128": 2}},
        "isic2019": {"benign": {"256": 15, "512": 5}, "malignant": {"256": 8, "128": 10}},
    }
    # Of 20 x 100 pairs; the corner of the ROC curve of two sources is at 18 / 20 and 20 / 100.
    source = (1 + 18 / 20 - 20 / 100) / 2
    # Shares: 256 pixels 8 of 23, 128 pixels 12 of 92, 512 pixels 0 of 5.
    scale = (8 * (15 / 2 + 80 + 5) + 12 * (80 / 2 + 5)) / 2000
    found = shortcuts.aucs(kept)
    assert found == pytest.approx({"source_auc": source, "scale_auc": scale})
    (warning,) = shortcuts.lines(found)
    assert warning.startswith("warning: the source alone scores AUC 0.850 on the training split")
    (said,) = shortcuts.lines({"source_auc": 0.6, "scale_auc": 0.5})
    assert said.startswith("ingest: the source alone scores AUC 0.600")
    assert shortcuts.lines(shortcuts.aucs({})) == []
