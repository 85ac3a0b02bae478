"""The distillation loss of two or more classes. Pure.

Not `timm.task.LogitDistillationTask`, which has no place for logits that were computed before: it
runs the teacher at every step. Both losses agree where the task is given the weight 1 - alpha.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dermaflux.classifiers.recipes.classification.loss import cross_entropy


def distillation(
    student: Tensor, teacher: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    """(1 - alpha) CE(student, labels) + alpha T^2 KL(p_teacher || p_student) in nats, batch mean.

    Hinton, Vinyals and Dean 2015 (arXiv 1503.02531), section 2, where T^2 keeps the gradient's size
    independent of T; the weights are those of DerMAE (arXiv 2602.19848, section 2.3). Logits are
    (B, K), or (B, 1), the log-odds of class 1 of two: then the divergence is that of the Bernoulli
    distributions. `labels`: (B,) class numbers.
    """
    log_p, log_q = (
        functional.log_softmax(of_two(logits) / temperature, dim=1) for logits in (teacher, student)
    )
    divergence = functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    return (1 - alpha) * cross_entropy(student, labels) + alpha * temperature**2 * divergence


def of_two(logits: Tensor) -> Tensor:
    """Log-odds (B, 1) as the logits (B, 2) of two classes, the first 0; (B, K) as they are."""
    return torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits
