from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import small_registry as small
import torch

from dermaflux.classifiers.model import network as supervised
from dermaflux.core.files import write_json
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.metrics import calibration
from dermaflux.params import Model, Params, load
from dermaflux.registry import export_onnx, promote

SIDE = 64
SMALL = {"densenet121": {"growth_rate": 8, "block_config": [1, 1, 1, 1]}}


def _models() -> dict[str, Model]:
    shipped = load.load(small.PARAMETERS).train.models
    models = {model.name: model for model in shipped.values()}
    for name, options in SMALL.items():
        models.setdefault(name, Model(name=name, learning_rate=1e-3, options=options))
    return models


def _folder(folder: Path, model: Model) -> Path:
    """A classifier whose outputs differ from image to image, as those of a trained one do."""
    classes = ["basal", "melanoma", "nevus"] if "densenet" in model.name else CLASSES
    config = supervised.configure(model, SIDE, classes) | {"temperature": 1.7}
    torch.manual_seed(0)
    network = supervised.build(config)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim >= 2:
                weight.mul_(2.0)
    folder.mkdir(parents=True)
    supervised.save_weights(network.state_dict(), folder / "model.safetensors")
    write_json(folder / "config.json", config)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", _models())
def test_the_file_returns_the_calibrated_probabilities_of_the_network(
    tmp_path: Path, name: str
) -> None:
    import onnx
    import onnxruntime

    folder = _folder(tmp_path / "classifier", _models()[name])
    output = tmp_path / "lesion.onnx"
    gap, size = export_onnx.export(folder, name, "hash", output)
    assert gap <= export_onnx.TOLERANCE
    assert size == output.stat().st_size
    pixels = np.random.default_rng(1).integers(0, 256, (3, SIDE, SIDE, 3)).astype(np.uint8)
    pixels[1] //= 4
    network, config = supervised.load(folder)
    uncalibrated = supervised.probabilities(network, config, pixels)
    session = onnxruntime.InferenceSession(output)
    images = pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255
    outputs = session.run(None, {"images": images})[0]
    expected = calibration.apply_temperature(uncalibrated, 1.7)
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(outputs, expected, atol=1e-4)
    properties = {entry.key: entry.value for entry in onnx.load(output).metadata_props}
    assert json.loads(properties["classes"]) == config["classes"]
    if outputs.ndim == 1:
        assert float(properties["threshold"]) == pytest.approx(0.5)
    assert properties["output_hash"] == "hash"
    assert "Not a medical device" in properties["disclaimer"]


def test_the_champion_or_a_cell_is_exported(
    unpromoted: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "lesion.onnx"
    with pytest.raises(InputError, match=r"no model 'lesion-vit'"):
        export_onnx.run(unpromoted, output, None)
    with pytest.raises(InputError, match=r"--cell vit-9/real .* vit-0/mixture, vit-0/real"):
        export_onnx.run(unpromoted, output, "vit-9/real")
    with pytest.raises(InputError, match=r"does not end in \.onnx"):
        export_onnx.run(unpromoted, tmp_path / "lesion.pt", None)
    promote.run(unpromoted)
    capsys.readouterr()
    export_onnx.run(unpromoted, output, None)
    printed = capsys.readouterr().out
    assert "lesion-vit version 1" in printed
    assert "Not a medical device" in printed


def test_a_file_that_disagrees_is_not_written(
    unpromoted: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exported graph is real but off by 1/1000, as a faulty operator would be."""

    class Shifted(export_onnx.CalibratedModel):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) + 1e-3

    monkeypatch.setattr(export_onnx, "CalibratedModel", Shifted)
    output = tmp_path / "lesion.onnx"
    output.write_bytes(b"the file of the last export")
    with pytest.raises(InputError, match=r"by 1\.0e-03 .* no file was written"):
        export_onnx.run(unpromoted, output, "vit-0/real")
    assert output.read_bytes() == b"the file of the last export"
    assert [path.name for path in tmp_path.glob("*onnx*")] == ["lesion.onnx"]


def test_missing_packages_name_the_extra(
    unpromoted: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'dermaflux\[onnx\]'"):
        export_onnx.run(unpromoted, tmp_path / "lesion.onnx", None)
