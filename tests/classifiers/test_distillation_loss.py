"""The distillation loss against timm's and against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from timm.task import LogitDistillationTask
from torch import Tensor, nn

from dermaflux.classifiers.recipes.distill.loss import distillation

SETTINGS = [(0.5, 4.0), (0.0, 2.0), (1.0, 1.0), (0.3, 7.0)]


class Logits(nn.Module):
    """A network that gives the logits it was made of, whatever the images."""

    num_classes, in_chans = 1, 3  # which timm asks for and does not use
    pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: Tensor) -> Tensor:
        return self.logits


def two(logits: Tensor) -> Tensor:
    """Of a log-odds z the logits z/2 and -z/2, another pair than (0, z) with the same softmax."""
    return torch.cat([-logits / 2, logits / 2], 1) if logits.shape[1] == 1 else logits


@pytest.mark.parametrize(("alpha", "temperature"), SETTINGS)
@pytest.mark.parametrize("outputs", [1, 2, 7])
def test_the_loss_is_timms_and_the_definition(outputs, alpha, temperature) -> None:
    draw = torch.Generator().manual_seed(outputs)
    student, teacher = (3 * torch.randn(16, outputs, generator=draw) for _ in range(2))
    labels = torch.randint(max(2, outputs), (16,), generator=draw)
    leaf = student.clone().requires_grad_()
    ours = distillation(leaf, teacher, labels, alpha, temperature)
    ours.backward()
    reference = student.clone().requires_grad_()
    task = LogitDistillationTask(
        Logits(two(reference)),
        Logits(two(teacher)),
        nn.CrossEntropyLoss(),
        task_loss_weight=1 - alpha,
        temperature=temperature,
        verbose=False,
    )
    timms = task(torch.zeros(16, 3, 8, 8), labels)["loss"]
    timms.backward()
    assert ours.item() == pytest.approx(timms.item(), abs=1e-6, rel=1e-6)
    assert leaf.grad == pytest.approx(reference.grad, abs=1e-6)

    p, q = (
        softmax(two(logits).double().numpy() / temperature, axis=1) for logits in (teacher, student)
    )
    plain = softmax(two(student).double().numpy(), axis=1)
    cross_entropy = -np.log(plain[np.arange(16), labels.numpy()]).mean()
    divergence = entropy(p, q, axis=1).mean()  # scipy's is KL(p || q)
    expected = (1 - alpha) * cross_entropy + alpha * temperature**2 * divergence
    assert ours.item() == pytest.approx(expected, abs=1e-6, rel=1e-6)
