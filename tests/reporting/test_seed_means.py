"""Means over seeds against a resampling written out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from dermaflux import paths
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.statistics import bootstrap, evaluations, seed_means


def test_seeds_and_arms_share_their_resamples(workspace: Params) -> None:
    cells = evaluations.load(workspace)
    means = seed_means.means(workspace, cells)
    assert list(means) == [
        (architecture, arm)
        for architecture in workspace.train.architectures
        for arm in workspace.train.arms
    ]
    mixture, real = means["vit", "mixture"]["auc"], means["vit", "real"]["auc"]
    assert mixture.values == pytest.approx([cell.arms["mixture"]["auc"] for cell in cells[:3]])

    tables = [
        pd.read_csv(paths.EVALUATIONS / f"vit-{seed}" / "predictions.csv")
        for seed in workspace.train.seeds
    ]
    labels = (tables[0]["label"] == "malignant").to_numpy().astype(int)
    weights = bootstrap.resamples(labels, np.arange(12), 100, seed=0)
    for number in (0, 57):
        rows = np.repeat(np.arange(12), weights[number])
        gains = [
            roc_auc_score(labels[rows], scores["mixture"].to_numpy()[rows])
            - roc_auc_score(labels[rows], scores["real"].to_numpy()[rows])
            for scores in tables
        ]
        gain = mixture.resampled[number] - real.resampled[number]
        assert gain == pytest.approx(np.mean(gains))
    gain = mixture.minus(real, 0.95, 1)
    seeds = np.var(mixture.values - real.values, ddof=1) / 3
    images = np.var(mixture.resampled - real.resampled, ddof=1)
    assert gain.value == pytest.approx((mixture.values - real.values).mean())
    assert (gain.high - gain.low) / 2 > 1.96 * np.sqrt(seeds + images)  # Student's tails


def test_cells_that_do_not_agree_are_refused(workspace: Params) -> None:
    cells = evaluations.load(workspace)
    path = paths.EVALUATIONS / "vit-1" / "predictions.csv"
    rows = pd.read_csv(path)
    rows[1:].to_csv(path, index=False)
    with pytest.raises(InputError, match="vit-1 was evaluated on 11 images and vit-0 on 12"):
        seed_means.means(workspace, cells)
    path.unlink()
    with pytest.raises(
        InputError, match=r"predictions\.csv is missing; run `dvc repro`, or `dvc pull`"
    ):
        seed_means.means(workspace, cells)
