"""Marks that a generator leaves and photographs lack: grids, clipped colours, frames, repeats.

An image's figures are compared with those of real images of the same size: medians, and the area
under the ROC curve of synthetic against real, the probability that a synthetic image has more of
it, which is 0.5 where both are alike. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dermaflux.audit import area
from dermaflux.audit.fidelity.comparison import ENOUGH
from dermaflux.audit.interval import missing, quantile, share, too_few
from dermaflux.core.arrays import Array, Pixels

PERIODS = (4, 8, 16)
"""Pixels of the grids looked for: patches of a transformer, blocks of an autoencoder or of JPEG."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_NEAR = 2  # frequencies on either side that a harmonic is compared with
_RIM = 3  # lines of pixels from the edge in which a frame is sought
Json = dict[str, Any]


def marks(image: Pixels) -> dict[str, float]:
    """Figures of one image uint8 (H, W, 3).

    `grid_P`: `grid_energy` at P pixels, for the `PERIODS` that the image is large enough for.
    `saturation`: share of pixels with a channel at 0 or 255, in [0, 1]. `border`: `border_step`.
    """
    grey = image.astype(np.float32) @ _LUMA
    jumps = [np.abs(np.diff(grey, axis=axis)).mean(axis=1 - axis) for axis in (0, 1)]
    grids = {f"grid_{period}": grid_energy(jumps, period) for period in PERIODS}
    found = {name: energy for name, energy in grids.items() if energy is not None}
    clipped = ((image == 0) | (image == 255)).any(axis=2)
    return {**found, "saturation": float(clipped.mean()), "border": border_step(jumps)}


def grid_energy(jumps: Sequence[Array], period: int) -> float | None:
    """Power at the frequencies of a grid over that of the frequencies beside them, in dB.

    `jumps`: mean absolute difference of each line of pixels to the next (H - 1,), and of each
    column to the next (W - 1,). A grid gives them a period: its harmonics 1 / period, 2 / period,
    ... stand out of a spectrum that is smooth otherwise. The larger of both directions; 0 is no
    grid. None for an image of fewer than eight periods.
    """
    if min(map(len, jumps)) + 1 < 8 * period:
        return None
    return max(_harmonics(profile, period) for profile in jumps)


def _harmonics(profile: Array, period: int) -> float:
    """Of a profile whose first value is the jump from pixel 0 to pixel 1."""
    size = (len(profile) + 1) // period * period  # a whole number of periods puts them on bins
    padded = np.append(profile, profile.mean())[:size]
    power = np.abs(np.fft.rfft(padded - padded.mean())) ** 2
    step = size // period
    bins = step * np.arange(1, period // 2 + 1)
    beside = [bins + offset for offset in (*range(-_NEAR, 0), *range(1, _NEAR + 1))]
    near = np.concatenate([each[(each > 0) & (each < len(power))] for each in beside])
    least = 1e-9 + 1e-6 * power.mean()  # an image without any texture has no grid
    return float(10 * np.log10((power[bins].mean() + least) / (power[near].mean() + least)))


def border_step(jumps: Sequence[Array]) -> float:
    """Largest of the `jumps` across the outermost lines of pixels over the median inside, in dB.

    0 is no frame.
    """
    steps = []
    for profile in jumps:
        rim = np.concatenate([profile[:_RIM], profile[-_RIM:]])
        steps.append((rim.max() + 0.1) / (np.median(profile[_RIM:-_RIM]) + 0.1))
    return float(10 * np.log10(max(steps)))


def compare(ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]]) -> Json:
    """Of each figure of `marks`: medians, the AUC of synthetic against real, both numbers."""
    names = dict.fromkeys(name for each in (*ours, *theirs) for name in each)
    rows: Json = {}
    for name in names:
        sides = [np.array([each[name] for each in side if name in each]) for side in (ours, theirs)]
        counts = len(sides[0]), len(sides[1])
        rows[name] = {"images": counts[0], "reference_images": counts[1]}
        if min(counts) < ENOUGH:
            rows[name] |= missing(too_few(*counts, ENOUGH))
            continue
        rows[name] |= area.of(*sides)._asdict()
        synthetic, real = (quantile(side, 0.5)._asdict() for side in sides)
        rows[name] |= {"synthetic": synthetic, "real": real}
    return rows


def repeats(digests: Sequence[str], correlations: Array, limit: float) -> Json:
    """How many images of the pool show what another one shows, and how many are the same bytes.

    `correlations` (N,): of the fine detail of each with the pool's image that it is most like.
    """
    if not len(digests):
        return missing("there are no synthetic images") | {"images": 0}
    counts = Counter(digests)
    exact = sum(counts[digest] > 1 for digest in digests)
    found = int((correlations >= limit).sum())
    return {
        "images": len(digests),
        "count": found,
        **share(found, len(digests))._asdict(),
        "identical": exact,
        "correlation_limit": limit,
    }
