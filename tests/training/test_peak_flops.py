"""The measured peak against torch's own count of FLOP, on a clock of our own."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dermaflux.training import peak_flops


def test_the_peak_is_the_flop_of_a_product_over_its_shortest_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Readings: the start, then for each product the check of the limit, its start and its end.
    readings = iter([0.0, *(0.01, 0.02, 0.10), *(0.11, 0.12, 0.16), *(0.17, 0.18, 0.28), 0.31])

    class Clock:
        @staticmethod
        def perf_counter() -> float:
            return next(readings)

    monkeypatch.setattr(peak_flops, "time", Clock)
    with FlopCounterMode(display=False) as counter:
        peak = peak_flops.measured_peak(torch.device("cpu"), torch.float32)
    products = 3
    assert peak == pytest.approx(counter.get_total_flops() / products / 0.04)
