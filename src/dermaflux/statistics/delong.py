"""The DeLong test: do two classifiers scored on the same images differ in AUC?

Pure functions on numpy arrays. Variances come from placements, the fraction of the other class that
an image is ranked above or below (DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44:837), which
midranks give in O(N log N) (Sun and Xu 2014, IEEE Signal Processing Letters 21:1389). Where
several images show one lesion the sums run over lesions instead of images (Obuchowski 1997,
Biometrics 53:567); with one image per group the two agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dermaflux.core.arrays import Array


@dataclass(frozen=True)
class Comparison:
    """AUC of the first classifier minus that of the second."""

    difference: float
    standard_error: float
    p: float
    """Two-sided p-value of the hypothesis that both AUCs are equal."""


def placements(labels: Array, scores: Array) -> tuple[Array, Array]:
    """Placements (K, M) of the M malignant images and (K, N) of the N benign ones.

    `labels` (M + N,) holds 0 or 1, `scores` (K, M + N) one row per classifier. The mean of either
    is the AUC; a tie of a benign and a malignant score counts one half.
    """
    from scipy.stats import rankdata

    positive, negative = scores[:, labels == 1], scores[:, labels == 0]
    count_positive, count_negative = positive.shape[1], negative.shape[1]
    pooled = rankdata(np.hstack([positive, negative]), axis=1)
    above = pooled[:, :count_positive] - rankdata(positive, axis=1)
    below = pooled[:, count_positive:] - rankdata(negative, axis=1)
    return above / count_negative, 1 - below / count_positive


def covariance(labels: Array, scores: Array, groups: Array | None = None) -> tuple[Array, Array]:
    """AUCs (K,) of K classifiers on the same images, and their covariance matrix (K, K).

    `groups` (N,): images with the same number are not independent; without it all images are
    independent. Each class needs at least two groups, or the variance is NaN.
    """
    malignant, benign = placements(labels, scores)
    aucs: Array = malignant.mean(axis=1)
    group = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    total = int(group.max()) + 1
    classes = [(malignant, group[labels == 1]), (benign, group[labels == 0])]
    matrix = np.zeros((len(scores), len(scores)))
    sums = []
    for placement, member in classes:
        images = placement.shape[1]
        deviations = np.stack(
            [np.bincount(member, weights=row, minlength=total) for row in placement - aucs[:, None]]
        )
        clusters = len(np.unique(member))
        factor = clusters / (clusters - 1) if clusters > 1 else np.nan
        matrix += factor * deviations @ deviations.T / images**2
        sums.append(deviations / images)
    # Only groups with both classes correlate the two sums; a lesion with one label adds nothing.
    between = total / (total - 1) * sums[0] @ sums[1].T
    return aucs, matrix + between + between.T


def compare(labels: Array, first: Array, second: Array, groups: Array | None = None) -> Comparison:
    """Test that two classifiers with scores (N,) on the same images have equal AUC.

    Scores that rank the images identically give a difference of 0 and p = 1.
    """
    aucs, matrix = covariance(labels, np.stack([first, second]), groups)
    difference = float(aucs[0] - aucs[1])
    variance = float(matrix[0, 0] + matrix[1, 1] - 2 * matrix[0, 1])
    # Rounding turns a variance of 0 into about 1e-20.
    error = float(np.sqrt(variance)) if variance > 1e-18 or np.isnan(variance) else 0.0
    return Comparison(difference, error, two_sided(difference, error))


def two_sided(estimate: float, standard_error: float) -> float:
    """Two-sided p-value of an estimate with a normal distribution around 0; 1 when both are 0."""
    from scipy.special import ndtr

    if standard_error == 0:
        return 1.0 if abs(estimate) < 1e-12 else 0.0
    return float(2 * ndtr(-abs(estimate) / standard_error))
