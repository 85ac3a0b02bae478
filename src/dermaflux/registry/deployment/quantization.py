"""A classifier's ONNX file in int8: static quantization in the QDQ format, per output channel.

Weights and the inputs of convolutions and of matrix products with weights become integers; what
lies between them (normalisation, activations, the attention of a transformer, softmax) stays in
fp32, and so do the first and the last of them and depthwise convolutions: they hold few of the
weights and cause most of the loss (Sheng et al. 2018, https://arxiv.org/abs/1803.08607). Ranges of
activations come from training images. Jacob et al. 2018
(https://arxiv.org/abs/1712.05877); https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from dermaflux.core.arrays import Array, Pixels
from dermaflux.registry import export_onnx

_BATCH = 16
_QUANTIZED = ["Conv", "MatMul", "Gemm"]
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "min-max": ("MinMax", {}),
    "mean of batch min-max": ("MinMax", {"CalibMovingAverage": True}),
    "percentile 99.99": ("Percentile", {"CalibPercentile": 99.99}),
    "percentile 99.9": ("Percentile", {"CalibPercentile": 99.9}),
}
"""How the range of an activation follows from its values: a method of ONNX Runtime and options."""


class _Calibration:
    """The `CalibrationDataReader` of ONNX Runtime."""

    def __init__(self, pixels: Pixels) -> None:
        self._batches = iter(
            [pixels[first : first + _BATCH] for first in range(0, len(pixels), _BATCH)]
        )

    def get_next(self) -> dict[str, Array] | None:
        """The next batch, or None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": images(batch)}


def images(pixels: Pixels) -> Array:
    """uint8 (N, S, S, 3) -> the input of an exported classifier: float32 (N, 3, S, S), [0, 1]."""
    return np.ascontiguousarray((pixels.astype(np.float32) / 255).transpose(0, 3, 1, 2))


def quantize(content: bytes, pixels: Pixels) -> tuple[bytes, str]:
    """An fp32 file of `export_onnx.export` -> the same graph in int8, and how it was calibrated.

    `pixels`, uint8 (N, S, S, 3) with N >= 2, are training images. Every other one sets the ranges,
    by each method of `METHODS`; the file is returned whose probabilities differ least on the rest,
    since one image with extreme activations widens ranges so far that little is left of the others.
    """
    from onnxruntime.quantization import shape_inference

    rest = pixels[1::2]
    expected = probabilities(content, rest)
    files: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        fp32, prepared = Path(folder) / "fp32.onnx", Path(folder) / "prepared.onnx"
        fp32.write_bytes(content)
        # Folds batch norm into convolutions, so that one range serves both.
        shape_inference.quant_pre_process(fp32, prepared, skip_symbolic_shape=True)
        excluded = _sensitive(prepared)
        for name in METHODS:
            files[name] = _with_method(prepared, pixels[::2], name, excluded)
    errors = {
        name: float(np.abs(probabilities(file, rest) - expected).mean())
        for name, file in files.items()
    }
    best = min(errors, key=lambda name: errors[name])
    return files[best], best


def _sensitive(prepared: Path) -> list[str]:
    """Names of the nodes that stay in fp32: the first, the last, and depthwise convolutions."""
    import onnx

    graph = onnx.load(prepared).graph
    shapes = {weight.name: weight.dims for weight in graph.initializer}
    nodes = [node for node in graph.node if node.op_type in _QUANTIZED and node.input[1] in shapes]
    depthwise = [node for node in nodes if node.op_type == "Conv" and shapes[node.input[1]][1] == 1]
    return sorted({node.name for node in (nodes[0], *depthwise, nodes[-1])})


def _with_method(prepared: Path, pixels: Pixels, name: str, excluded: Sequence[str]) -> bytes:
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    method, options = METHODS[name]
    output = prepared.with_name("int8.onnx")
    with redirect_stdout(io.StringIO()):  # it prints its progress
        quantize_static(
            prepared,
            output,
            _Calibration(pixels),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_QUANTIZED,
            nodes_to_exclude=list(excluded),
            per_channel=True,
            # With 7 bits no product saturates on processors without VNNI instructions.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[method],
            extra_options={"MatMulConstBOnly": True, **options},
        )
    return output.read_bytes()


def probabilities(content: bytes, pixels: Any) -> Array:
    """(N,) or (N, K): what an ONNX file answers for uint8 images (N, S, S, 3)."""
    session = export_onnx.session(content)
    parts = [
        session.run(None, {"images": images(np.asarray(pixels[first : first + _BATCH]))})[0]
        for first in range(0, len(pixels), _BATCH)
    ]
    return np.concatenate(parts).astype(np.float64)
