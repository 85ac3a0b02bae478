"""The learning-rate schedule against torch's cosine."""

from __future__ import annotations

import pytest
import torch

from dermaflux.training.schedule import lr_scale


def test_learning_rate_warms_up_linearly_and_ends_at_zero() -> None:
    assert [lr_scale(step, 100, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert lr_scale(4, 100, 4) == 1.0
    assert lr_scale(52, 100, 4) == pytest.approx(0.5)
    reference = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=60)
    for step in range(60):
        assert lr_scale(step, 60, 0) == pytest.approx(cosine.get_last_lr()[0])
        reference.step()
        cosine.step()
