"""What one prediction costs: parameters, FLOP, MAC, and the latency of ONNX Runtime."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn

from dermaflux.registry import export_onnx


@dataclass(frozen=True)
class Computation:
    """Size of a network and the arithmetic of one image."""

    parameters: int
    flop: int
    """Floating-point operations of matrix products and convolutions, a multiplication and an
    addition counted as two: 2 x MAC."""

    @property
    def mac(self) -> int:
        """Multiply-accumulate operations, which papers often call FLOPs as well."""
        return self.flop // 2


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one prediction at batch 1."""

    p50_ms: float
    p95_ms: float
    runs: int
    threads: int

    def as_dict(self) -> dict[str, float]:
        """Its fields by name."""
        return asdict(self)


def count(model: nn.Module, side: int) -> Computation:
    """Parameters of a model, and the FLOP of one image (1, 3, side, side), counted by torch.

    Works on the device of the model, and so also on `meta`, without memory. Normalisation layers,
    activations and softmax are not counted, as is usual.
    """
    from torch.utils.flop_counter import FlopCounterMode

    parameters = list(model.parameters())
    for module in model.modules():
        # Fused attention is one operator, which torch counts on some devices only.
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # type: ignore[assignment]
    image = torch.zeros(1, 3, side, side, device=parameters[0].device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(image)
    return Computation(sum(each.numel() for each in parameters), counter.get_total_flops())


def latencies(
    models: Mapping[str, bytes], side: int, runs: int, threads: int
) -> dict[str, Latency]:
    """Latency of ONNX files at batch 1; their runs alternate, so that all meet the same load.

    `threads` are those of one operator. Each file runs `runs` times after a tenth as many runs of
    warm-up.
    """
    sessions = {
        name: export_onnx.session(content, threads=threads) for name, content in models.items()
    }
    image = np.random.default_rng(0).random((1, 3, side, side), np.float32)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    warm_up = max(1, runs // 10)
    for _ in range(warm_up + runs):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(None, {"images": image})
            seconds[name].append(time.perf_counter() - start)
    result = {}
    for name, values in seconds.items():
        p50, p95 = np.quantile(values[warm_up:], [0.5, 0.95]) * 1000
        result[name] = Latency(float(p50), float(p95), runs, threads)
    return result
