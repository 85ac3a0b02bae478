"""What a classifier costs to run: counts against closed forms, int8 against fp32, one table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_registry as small
import timm
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from dermaflux import paths
from dermaflux.classifiers.model import network
from dermaflux.core import table
from dermaflux.core.files import write_json
from dermaflux.errors import InputError
from dermaflux.params import Model, Params
from dermaflux.registry import deployment, export_onnx
from dermaflux.registry.deployment import cost, quantization

SIDE = small.SIDE
TEST = range(9000, 9060)


def test_parameters_and_flop_are_those_of_the_closed_form() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 5)
    )
    counted = cost.count(model, 16)
    assert counted.parameters == 8 * 27 + 8 + 2048 * 5 + 5
    assert counted.mac == 8 * 27 * 16 * 16 + 2048 * 5
    assert counted.flop == 2 * counted.mac


@pytest.mark.parametrize(
    ("name", "options", "side", "million", "gflop"),
    [
        ("vit_huge_patch14_224", {"patch_size": 16, "img_size": 256}, 256, 631, 335),
        ("vit_base_patch16_224", {"img_size": 256}, 256, 85.9, 46.4),
        ("vit_base_patch16_224", {}, 224, 85.8, 2 * 17.6),
        ("efficientnet_b0", {}, 256, 4.0, 1.0),
    ],
)
def test_counts_of_known_networks(
    name: str, options: dict[str, int], side: int, million: float, gflop: float
) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=1, **options)
    counted = cost.count(model, side)
    assert counted.parameters / 1e6 == pytest.approx(million, rel=5e-3)
    assert counted.flop / 1e9 == pytest.approx(gflop, rel=5e-3)


def test_latencies_are_quantiles_of_the_runs_after_the_warm_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, calls = [0.0], []

    class Session:
        def __init__(self, content: bytes) -> None:
            self.name, self.count = content.decode(), 0

        def run(self, outputs: None, inputs: dict[str, np.ndarray]) -> None:
            assert inputs["images"].shape == (1, 3, SIDE, SIDE)
            calls.append(self.name)
            self.count += 1
            warm_up = self.count <= 10
            clock[0] += 9.0 if warm_up else (self.count - 10) / 1000

    monkeypatch.setattr(export_onnx, "session", lambda content, threads: Session(content))
    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])
    measured = cost.latencies({"fp32": b"a", "int8": b"b"}, SIDE, runs=100, threads=1)
    assert calls == ["a", "b"] * 110
    for latency in measured.values():
        assert latency.p50_ms == pytest.approx(50.5)
        assert latency.p95_ms == pytest.approx(95.05)


def _corpus() -> None:
    rows = [small._row(number, "train") for number in range(5000, 5080)]
    rows += [small._row(number, "test") for number in TEST]
    table.write(rows, paths.CORPUS, 64)


def _trained(folder: Path) -> None:
    """A small EfficientNet that has learned the toy images, and is unsure of some."""
    model = Model(name="test_efficientnet", learning_rate=1e-3)
    config = network.configure(model, SIDE) | {"temperature": 1.3, "threshold": 0.4}
    torch.manual_seed(0)
    net = network.build(config)
    pixels = np.stack([_decoded(number) for number in range(5000, 5080)])
    images = network.normalise(network.unit(torch.from_numpy(pixels)), config)
    labels = torch.arange(80).remainder(2).float()
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        noisy = images + 2 * torch.randn(images.shape, generator=generator)
        loss = nn.functional.binary_cross_entropy_with_logits(net(noisy)[:, 0], labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    folder.mkdir(parents=True, exist_ok=True)
    network.save_weights(net.state_dict(), folder / "model.safetensors")
    write_json(folder / "config.json", config)


def _decoded(number: int) -> np.ndarray:
    from dermaflux.registry import serving

    return serving.prepare(small.image(number, number % 2 == 1), SIDE)


@pytest.mark.slow
def test_the_table_of_a_trained_classifier(
    unpromoted: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnx

    _corpus()
    _trained(paths.CLASSIFIERS / "efficientnet-0" / "mixture")
    deployment.run(unpromoted, ["efficientnet-0/mixture", "vit-0/real"], 64, 20, 1)
    printed = capsys.readouterr().out
    for text in ("GFLOP", "GMAC", "file MB", "p95 ms", "majority accuracy", "1 thread, 20 runs"):
        assert text in printed
    report = json.loads((paths.DEPLOYMENTS / "efficientnet-0-mixture.json").read_text())
    files = {
        name: (paths.DEPLOYMENT_MODELS / "efficientnet-0" / "mixture" / f"{name}.onnx").read_bytes()
        for name in deployment.PRECISIONS
    }
    pixels = np.stack([_decoded(number) for number in TEST])
    labels = np.array(TEST) % 2
    net, config = network.load(paths.CLASSIFIERS / "efficientnet-0" / "mixture")
    uncalibrated = network.probabilities(net, config, pixels)
    assert report["largest_onnx_difference"] <= export_onnx.TOLERANCE
    auc = roc_auc_score(labels, uncalibrated)
    assert report["fp32"]["test"]["auc"] == pytest.approx(auc)
    assert report["fp32"]["test"]["accuracy"] == pytest.approx(
        ((uncalibrated >= 0.4) == labels).mean()
    )
    int8 = quantization.probabilities(files["int8"], pixels)
    assert report["int8"]["test"]["auc"] == pytest.approx(roc_auc_score(labels, int8))
    assert report["int8_minus_fp32"]["auc"] >= -0.01
    assert report["majority_accuracy"] == 0.5
    assert report["test_images"] == 60
    assert report["calibration_images"] == 64
    assert report["int8"]["bytes"] == len(files["int8"]) < 0.6 * len(files["fp32"])
    graph = onnx.load_from_string(files["int8"]).graph
    scales = {each.name: each.dims for each in graph.initializer if each.name.endswith("_scale")}
    assert any(dims and dims[0] > 1 for dims in scales.values())
    integers = {o for node in graph.node if node.op_type == "DequantizeLinear" for o in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    groups = [next(a.i for a in node.attribute if a.name == "group") for node in convolutions]
    assert max(groups) > 1
    for number, (node, group) in enumerate(zip(convolutions, groups, strict=True)):
        assert ({*node.input[:2]} <= integers) == (number > 0 and group == 1), node.name
    (head,) = [node for node in graph.node if node.op_type == "Gemm"]
    assert not {*head.input[:2]} & integers
    rows = pd.read_csv(paths.DEPLOYMENTS / "table.csv")
    assert list(rows["classifier"] + " " + rows["precision"]) == [
        *("efficientnet-0/mixture fp32", "efficientnet-0/mixture int8"),
        *("vit-0/real fp32", "vit-0/real int8"),
    ]
    assert (rows["GFLOP"] == 2 * rows["GMAC"]).all()

    _trained(paths.CLASSIFIERS / "vit-0" / "real")
    deployment.run(unpromoted, ["efficientnet-0/mixture"], 64, 2, 1)
    assert "vit-0/real: measured on other weights than are there now" in capsys.readouterr().out
    rows = pd.read_csv(paths.DEPLOYMENTS / "table.csv")
    assert set(rows["classifier"]) == {"efficientnet-0/mixture"}


def test_ranges_come_from_training_images_of_each_class(unpromoted: Params) -> None:
    _corpus()
    pixels = deployment.calibration_images(["benign", "malignant"], SIDE, 20)
    training = {_decoded(number).tobytes(): number for number in range(5000, 5080)}
    chosen = [training[image.tobytes()] for image in pixels]
    assert sum(number % 2 for number in chosen) == 10
    # Both the half that sets the ranges and the half that chooses among methods have both classes.
    assert sum(number % 2 for number in chosen[::2]) == 5


def test_the_method_that_changes_probabilities_least_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = {b"fp32": 0.5, b"min-max": 0.9, b"percentile 99.9": 0.6}
    seen: dict[str, list[int]] = {"ranges": [], "choice": []}

    def with_method(prepared: Path, pixels: np.ndarray, name: str, excluded: list[str]) -> bytes:
        assert excluded == ["stem"]
        seen["ranges"] = pixels[:, 0, 0, 0].tolist()
        return name.encode()

    def probabilities(content: bytes, pixels: np.ndarray) -> np.ndarray:
        seen["choice"] = pixels[:, 0, 0, 0].tolist()
        return np.full(len(pixels), answers.get(content, 0.8))

    monkeypatch.setattr(quantization, "_sensitive", lambda prepared: ["stem"])
    monkeypatch.setattr(quantization, "_with_method", with_method)
    monkeypatch.setattr(quantization, "probabilities", probabilities)
    monkeypatch.setattr(
        "onnxruntime.quantization.shape_inference.quant_pre_process", lambda *args, **kwargs: None
    )
    pixels = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    assert quantization.quantize(b"fp32", pixels) == (b"percentile 99.9", "percentile 99.9")
    assert seen == {"ranges": [0, 2, 4], "choice": [1, 3, 5]}


@pytest.mark.parametrize(
    ("cells", "calibration", "threads", "sentence"),
    [
        (["vit-9/real"], 64, 1, r"^vit-9/real is not a trained classifier; name one of vit-0/mix"),
        (["../vit-0/real"], 64, 1, r"^\.\./vit-0/real is not a trained classifier"),
        (["vit-0/real", "vit-0/real"], 64, 1, "twice; name each once"),
        (["vit-0/real"], 64, 10_000, r"--threads 10000 is more than the \d+ cores"),
        (["vit-0/real"], 3, 1, "--calibration 3 is less than two images for each of 2 classes"),
        (["vit-0/real"], 64, 1, r"holds? no|test"),
    ],
)
def test_bad_input_is_one_sentence_before_any_work(
    unpromoted: Params, cells: list[str], calibration: int, threads: int, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence) as raised:
        deployment.run(unpromoted, cells, calibration, 20, threads)
    assert "\n" not in str(raised.value)
    assert not paths.DEPLOYMENTS.exists()
    assert not paths.DEPLOYMENT_MODELS.exists()


def test_a_network_too_large_for_one_file_is_named(
    unpromoted: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_onnx, "_LARGEST", 1000)
    with pytest.raises(InputError, match=r"GB of weights .* export a smaller network"):
        export_onnx.run(unpromoted, tmp_path / "lesion.onnx", "vit-0/real")
