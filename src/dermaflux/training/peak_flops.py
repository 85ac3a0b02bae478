"""The matrix-product rate of this device, as the denominator of MFU.

Reads and writes nothing.
"""

from __future__ import annotations

import time

import torch

_SECONDS = 0.3


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a square matrix product in `dtype`, the best of what fits in 0.3 s.

    MFU (model FLOP utilisation) is the model's FLOP per second divided by this figure. It is
    measured rather than taken from a data sheet, so it means the same on every device: on an H200
    about 0.8 of the sheet's dense bf16 figure, on a CPU what the threads of this process reach.
    """
    side = 8192 if device.type == "cuda" else 1024
    left = torch.randn(side, side, device=device).to(dtype)
    right = torch.randn(side, side, device=device).to(dtype)
    started = time.perf_counter()
    best = float("inf")
    while time.perf_counter() - started < _SECONDS or best == float("inf"):
        began = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return float(2 * side**3 / best)
