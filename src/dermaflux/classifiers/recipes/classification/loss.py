"""Cross-entropy of two or more classes. Pure."""

from __future__ import annotations

from torch import Tensor, nn


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats of `labels` (B,), class numbers.

    `logits`: (B, 1), the log-odds of class 1 of two, or (B, K).
    """
    if logits.shape[1] == 1:
        return nn.functional.binary_cross_entropy_with_logits(logits.squeeze(1), labels.float())
    return nn.functional.cross_entropy(logits, labels)
