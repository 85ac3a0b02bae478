"""A classifier as one ONNX file: `dermaflux export-onnx lesion.onnx [--cell vit-0/mixture]`.

Reads the registry's champion, or a folder of models/classifiers/; writes the output file.
The graph takes `images`, float32 (N, 3, S, S), RGB in [0, 1], and returns `probability`: float32
(N,), calibrated probability of malignancy, or (N, K), of each class in the order of the metadata.
Normalisation, sigmoid or softmax and temperature are inside; the caller crops a photograph to a
square and scales it to S (`registry.serving.prepare`).
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dermaflux import paths
from dermaflux.classifiers.model import network
from dermaflux.core.arrays import Array, Pixels
from dermaflux.errors import InputError, one_line
from dermaflux.metrics import calibration
from dermaflux.params import Params
from dermaflux.registry import registry
from dermaflux.registry.model_card import DISCLAIMER
from dermaflux.tracking import runs, store

TOLERANCE = 1e-4
"""Largest allowed difference of a probability between the file and the network."""
OPSET = 18
_LARGEST = 2**31 - 2**20
"""Bytes of weights that fit into one protobuf message with the graph beside them."""
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


class CalibratedModel(nn.Module):
    """Images to calibrated probabilities."""

    def __init__(self, model: nn.Module, config: dict[str, Any]) -> None:
        super().__init__()
        self.model = model
        for module in model.modules():
            # The exporter cannot decompose torch's fused attention with a dynamic batch size.
            if hasattr(module, "fused_attn"):
                module.fused_attn = False
        self.temperature = float(config.get("temperature", 1.0))
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) in [0, 1] -> (N,), or (N, K) of a model with K outputs."""
        logits: Tensor = self.model((images - self.mean) / self.std) / self.temperature
        if logits.shape[1] == 1:
            return logits[:, 0].sigmoid()
        return logits.softmax(dim=1)


def run(params: Params, output: Path, cell: str | None) -> None:
    """Export the champion, or the classifier of `<architecture>-<seed>/<arm>`.

    Raises `InputError` when a package or the classifier is missing, and when the file's
    probabilities differ from the network's by more than `TOLERANCE`.
    """
    require_packages("export-onnx")
    if output.suffix != ".onnx":
        raise InputError(f"{output} does not end in .onnx; give the file a name that does")
    folder, name, output_hash = _source(params, cell)
    gap, size = export(folder, name, output_hash, output)
    print(
        f"{output}: {name}, {size / 1e6:,.1f} MB; probabilities differ from the network's by at "
        f"most {gap:.1e}. {DISCLAIMER}"
    )


def require_packages(command: str) -> None:
    """Raise `InputError` when a package that ONNX needs is missing."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"{command} needs {', '.join(missing)}; run `pip install 'dermaflux[onnx]'`"
        )


@store.answering()
def _source(params: Params, cell: str | None) -> tuple[Path, str, str]:
    """A classifier's folder, name and hash as `train` wrote it."""
    if cell is None:
        champion = registry.require_champion(runs.connect(), params.promote.model_name)
        champion.load()
        name = f"{champion.name} version {champion.version}"
        return champion.folder(), name, champion.tags.get("output_hash", "unknown")
    return trained(cell, "--cell "), cell, runs.dvc_hash(paths.CLASSIFIERS / cell)


def trained(cell: str, option: str = "") -> Path:
    """The folder of `<architecture>-<seed>/<arm>`; `InputError` when no classifier is there."""
    folder = paths.CLASSIFIERS / cell
    known = sorted(
        path.parent.relative_to(paths.CLASSIFIERS).as_posix()
        for path in paths.CLASSIFIERS.glob("*/*/config.json")
    )
    if cell not in known:
        raise InputError(
            f"{option}{one_line(cell, 200)} is not a trained classifier; name one of "
            f"{', '.join(known) or 'none yet'} or run `dvc repro`"
        )
    return folder


def check_size(folder: Path) -> None:
    """Raise `InputError` when the weights of a classifier folder are too large for a file."""
    size = (folder / "model.safetensors").stat().st_size
    if size >= _LARGEST:
        raise InputError(
            f"{folder} has {size / 1e9:.1f} GB of weights and an ONNX file holds less than "
            f"{_LARGEST / 1e9:.1f} GB; export a smaller network, such as its student"
        )


def export(folder: Path, name: str, output_hash: str, output: Path) -> tuple[float, int]:
    """Write the classifier of a folder; returns the largest difference and the size in bytes."""
    check_size(folder)
    model, config = network.load(folder)
    temperature = float(config.get("temperature", 1.0))
    pixels = _test_images(int(config["image_size"]))
    # Before the export, which moves the model: as it is served, and on the same device.
    expected = calibration.apply_temperature(
        network.probabilities(model, config, pixels), temperature
    )
    content = _graph(model, config, temperature, {"name": name, "output_hash": output_hash})
    gap = largest_difference(content, pixels, expected)
    if not gap <= TOLERANCE:
        raise InputError(
            f"{name} as ONNX differs from the network by {gap:.1e} in a probability, more than "
            f"{TOLERANCE:g}, so no file was written; report it with the versions of torch and onnx"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.partial")
    partial.write_bytes(content)
    partial.rename(output)
    return gap, len(content)


def _graph(
    model: nn.Module, config: dict[str, Any], temperature: float, origin: dict[str, str]
) -> bytes:
    """The file's content, with everything a caller needs in its metadata."""
    import onnx

    side = int(config["image_size"])
    graph = CalibratedModel(model.cpu().to(memory_format=torch.contiguous_format), config).eval()
    with warnings.catch_warnings():
        # The exporter warns about TinyViT's cache; the comparison decides whether it is right.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph,
            (torch.rand(2, 3, side, side),),
            input_names=["images"],
            output_names=["probability"],
            dynamic_shapes={"images": {0: torch.export.Dim("images")}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    metadata = {
        **origin,
        "classes": json.dumps(config["classes"]),
        "temperature": f"{temperature:.9g}",
        "image_size": str(side),
        "input": "RGB in [0, 1], upright, centre square",
        "disclaimer": DISCLAIMER,
    }
    threshold = calibrated_threshold(config)
    if threshold is not None:
        metadata["threshold"] = f"{threshold:.9g}"
    proto = program.model_proto
    onnx.helper.set_model_props(proto, metadata)
    content: bytes = proto.SerializeToString()
    return content


def calibrated_threshold(config: dict[str, Any]) -> float | None:
    """The decision threshold on the file's probabilities; None of a classifier of diagnoses."""
    if config["threshold"] is None:
        return None
    temperature = float(config.get("temperature", 1.0))
    return float(
        calibration.apply_temperature(np.array([float(config["threshold"])]), temperature)[0]
    )


def _test_images(side: int) -> Pixels:
    """uint8 (6, side, side, 3): coarse and fine noise, since pooled fine noise looks all alike."""
    generator = np.random.default_rng(0)
    factor = -(-side // 4)
    coarse = generator.integers(0, 206, (6, 4, 4, 3)).repeat(factor, 1).repeat(factor, 2)
    fine = generator.integers(0, 50, (6, side, side, 3))
    return (coarse[:, :side, :side] + fine).astype(np.uint8)


def largest_difference(content: bytes, pixels: Pixels, expected: Array) -> float:
    """Largest difference between onnxruntime's and the `expected` probabilities.

    Runs one batch of one image and one of the rest, since the batch size is dynamic.
    """
    running = session(content)
    images = (pixels.astype(np.float32) / 255).transpose(0, 3, 1, 2)
    batches = (np.ascontiguousarray(images[:1]), np.ascontiguousarray(images[1:]))
    outputs = np.concatenate([running.run(None, {"images": batch})[0] for batch in batches])
    return float(np.abs(outputs - expected).max())


def session(content: bytes, threads: int = 0) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU; 0 threads: as many as it has cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if threads:  # sessions that are timed in turn must not compete for the cores
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
