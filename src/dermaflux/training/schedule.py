"""The learning-rate schedule of every training loop: linear warm-up, then half a cosine to 0."""

from __future__ import annotations

import math


def lr_scale(step: int, steps: int, warmup_steps: int) -> float:
    """Factor in (0, 1] on the peak learning rate at a 0-based step; the warm-up ends at 1."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))
