from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import small_registry as small

from dermaflux import paths
from dermaflux.classifiers.model import network
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.registry import export_onnx, predict, promote, registry, rollback
from dermaflux.registry.serving import COLUMNS, prepare
from dermaflux.tracking import runs


def test_predict_prints_a_line_for_every_image(
    unpromoted: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lesion, text, grey = tmp_path / "lesion.png", tmp_path / "notes.jpg", tmp_path / "grey.png"
    lesion.write_bytes(small.image(7, True))
    text.write_text("not an image")
    grey.write_bytes(small.flat())
    with pytest.raises(InputError, match=r"no model 'lesion-vit'.*dermaflux register"):
        predict.run(unpromoted, [lesion])
    promote.run(unpromoted)
    with pytest.raises(InputError, match=r"notes\.jpg holds 12 bytes that are not a whole image"):
        predict.run(unpromoted, [lesion, text])
    with pytest.raises(InputError, match=r"absent\.png is not a file"):
        predict.run(unpromoted, [tmp_path / "absent.png"])
    capsys.readouterr()
    predict.run(unpromoted, [lesion, grey])
    first, second, last = capsys.readouterr().out.splitlines()
    assert "% malignant" in first
    assert "out of distribution" not in first
    assert "out of distribution" in second
    assert "Not a medical device" in last
    assert "version 1 (vit-0/mixture)" in last
    # Without the detector, whether the image is a lesion is unknown.
    folder = registry.require_champion(runs.connect(), "lesion-vit").folder()
    (folder / "ood.safetensors").unlink()
    predict.run(unpromoted, [grey])
    assert "is unknown" in capsys.readouterr().out


def test_a_model_is_opened_by_its_address_without_a_project(
    unpromoted: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lesion = tmp_path / "lesion.png"
    lesion.write_bytes(small.image(7, True))
    promote.run(unpromoted)
    downloaded = registry.require_champion(runs.connect(), "lesion-vit").folder().parents[1]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    # A look-up without a store must not make an empty one here.
    monkeypatch.setattr(paths, "project_root", lambda: elsewhere)
    monkeypatch.setattr("dermaflux.tracking.store.project_root", lambda: elsewhere)
    with pytest.raises(InputError, match=r"there is none at .*set MLFLOW_TRACKING_URI"):
        predict.run(None, [lesion], "models:/lesion-vit@champion")
    assert not list(elsewhere.iterdir())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    capsys.readouterr()
    answers = []
    for address in (
        "models:/lesion-vit@champion",
        "models:/lesion-vit/1",
        str(downloaded),
        downloaded.as_uri(),
        str(tmp_path / paths.CLASSIFIERS / "vit-0" / "mixture"),
    ):
        predict.run(None, [lesion], address)
        answers.append(capsys.readouterr().out.splitlines()[0])
    assert len(set(answers)) == 1
    assert "% malignant" in answers[0]
    for address, sentence in (
        ("models:/lesion-vit@best", "no model 'lesion-vit' with the alias 'best'"),
        ("models:/lesion-vit/9", "no model 'lesion-vit' with the version 9"),
        ("absent", "is no folder here"),
        (f"{downloaded.as_uri()}-absent", "cannot be fetched"),
        (str(elsewhere), "holds no classifier of dermaflux"),
    ):
        with pytest.raises(InputError, match=sentence):
            predict.run(None, [lesion], address)
    with pytest.raises(InputError, match=r"no params\.yaml here .* by --model"):
        predict.run(None, [lesion])


def test_a_json_request_gets_calibrated_rows_and_a_damaged_one_its_problem(
    unpromoted: Params,
) -> None:
    import mlflow
    from mlflow.pyfunc import scoring_server

    promote.run(unpromoted)
    images = [small.image(7, True), b"not an image", small.flat(), small.image(7, True)[:300]]
    net, config = network.load(paths.CLASSIFIERS / "vit-0" / "mixture")
    uncalibrated = network.probabilities(net, config, prepare(images[0], small.SIDE)[None])
    # At a temperature of 1/4 the logit is four times as large.
    expected = 1 / (1 + np.exp(-4 * np.log(uncalibrated / (1 - uncalibrated))))
    model = mlflow.pyfunc.load_model(f"models:/{unpromoted.promote.model_name}@champion")
    request = {
        "dataframe_records": [{"image": base64.b64encode(image).decode()} for image in images]
    }
    answer = scoring_server.invocations(
        json.dumps(request), "application/json", model, model.metadata.get_input_schema()
    )
    rows = json.loads(answer.response)["predictions"]
    np.testing.assert_allclose(rows[0]["probability"], expected[0], rtol=1e-6)
    assert rows[0]["label"] == ("malignant" if uncalibrated[0] >= 0.5 else "benign")
    assert [row["out_of_distribution"] for row in rows] == [False, None, True, None]
    for damaged in (rows[1], rows[3]):
        assert damaged["probability"] is None
        assert "not a whole image" in damaged["problem"]
    assert model.input_example is not None
    assert tuple(model.metadata.get_output_schema().input_names()) == COLUMNS


@pytest.mark.parametrize("damage", ["gone", "truncated", "another network", "no settings"])
def test_a_champion_that_cannot_be_loaded_is_one_sentence(
    unpromoted: Params, tmp_path: Path, damage: str
) -> None:
    promote.run(unpromoted)
    folder = registry.require_champion(runs.connect(), "lesion-vit").folder()
    weights = folder / "model.safetensors"
    if damage == "gone":
        shutil.rmtree(folder.parents[1])
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "another network":
        shutil.copy(folder / "ood.safetensors", weights)
    else:
        (folder / "config.json").write_text("{")
    lesion = tmp_path / "lesion.png"
    lesion.write_bytes(small.image(7, True))
    small.classifier("vit-0", "mixture", noise=0.05, seed=3)
    for attempt in (
        lambda: predict.run(unpromoted, [lesion]),
        lambda: promote.run(unpromoted),
        lambda: export_onnx.run(unpromoted, tmp_path / "lesion.onnx", None),
    ):
        with pytest.raises(InputError, match=r"version 1 of lesion-vit cannot be loaded") as caught:
            attempt()
        assert "\n" not in str(caught.value)
        assert "dermaflux rollback" in str(caught.value)
    with pytest.raises(InputError, match=r"version 1 .* is the first champion"):
        rollback.run(unpromoted, "it does not load")
    # As the error says: without the alias, promotion starts again.
    runs.connect().delete_registered_model_alias("lesion-vit", "champion")
    promote.run(unpromoted)
    assert small.report()["decision"] == "promoted"
