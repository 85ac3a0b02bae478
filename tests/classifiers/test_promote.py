from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dermaflux import parameter_file, paths, table, tracking
from dermaflux.classifiers import predict, promote, registry
from dermaflux.errors import InputError
from dermaflux.params import Model, Params

PARAMETERS = Path(__file__).parents[2] / "params.yaml"
SIDE, IMAGES = 32, 80


def _image(index: int, malignant: bool) -> bytes:
    rng = np.random.default_rng(index)
    array = rng.integers(80, 200, (SIDE, SIDE, 3)).astype(np.uint8)
    array[8:24, 8:24] //= 3 if malignant else 2
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def _corpus(first: int = 0) -> None:
    rows = []
    for number in range(first, first + IMAGES):
        malignant = number % 2 == 1
        encoded = _image(number, malignant)
        rows.append(
            {
                "image": {"bytes": encoded, "path": f"{number}.png"},
                "image_id": f"toy/{number:04d}",
                "source": "toy",
                "label": "malignant" if malignant else "benign",
                "split": "validation",
                "sha256": table.sha256(encoded),
            }
        )
    table.write(rows, paths.CORPUS, 64)


def _classifier(cell: str, arm: str, noise: float, first: int = 0, seed: int = 0) -> Path:
    """A tiny ViT with validation predictions that are the truth plus `noise` times a normal."""
    import torch

    from dermaflux.classifiers import supervised

    model = Model(
        name="vit_tiny_patch16_224",
        learning_rate=1e-3,
        options={"patch_size": 16, "depth": 1, "embed_dim": 12, "num_heads": 2},
    )
    config = supervised.configure(model, SIDE)
    torch.manual_seed(seed)
    folder = paths.CLASSIFIERS / cell / arm
    folder.mkdir(parents=True, exist_ok=True)
    supervised.save_weights(supervised.build(config).state_dict(), folder / "model.safetensors")
    table.write_json(folder / "config.json", config)
    rng = np.random.default_rng(seed)
    names = np.arange(first, first + IMAGES)
    scores = 1 / (1 + np.exp(-(names % 2 - 0.5 + noise * rng.normal(size=IMAGES))))
    rows = pd.DataFrame(
        {
            "image_id": [f"toy/{number:04d}" for number in names],
            "label": np.where(names % 2 == 1, "malignant", "benign"),
            "probability": scores,
        }
    )
    rows.to_csv(folder / "validation.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite store: making one takes seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)
    return path


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Params:
    monkeypatch.chdir(tmp_path)
    # MLflow keeps the last store in this variable, for child processes; a test starts without.
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns" / "mlflow.db")
    _corpus()
    _classifier("vit-0", "real", noise=2.0, seed=1)
    _classifier("vit-0", "mixture", noise=1.0, seed=2)
    found = parameter_file.load(PARAMETERS)
    return found.model_copy(update={"train": found.train.model_copy(update={"seeds": [0]})})


def _report() -> dict[str, object]:
    content: dict[str, object] = json.loads(paths.PROMOTE_REPORT.read_text())
    return content


def _versions(params: Params) -> int:
    client = tracking.connect()
    return len(client.search_model_versions(f"name = '{params.promote.model_name}'"))


def test_first_promotion_then_unchanged_then_kept_then_better(params: Params) -> None:
    client = tracking.connect()
    name = params.promote.model_name

    promote.run(params)
    report = _report()
    assert report["decision"] == "promoted"
    assert report["champion_before"] is None
    assert report["champion"]["cell"] == "vit-0"  # type: ignore[index]
    assert report["champion"]["arm"] == "mixture"  # type: ignore[index]
    champion = client.get_model_version_by_alias(name, "champion")
    assert champion.description == report["reason"]
    best = paths.CLASSIFIERS / "vit-0" / "mixture"
    assert champion.tags["output_hash"] == tracking.dvc_hash(best)
    assert champion.tags["data_hash"] == tracking.dvc_hash(paths.CORPUS)

    promote.run(params)
    assert _report()["decision"] == "unchanged"
    assert _versions(params) == 1

    # One changed prediction: another candidate, hardly another AUC.
    _classifier("vit-0", "mixture", noise=1.01, seed=2)
    promote.run(params)
    report = _report()
    assert report["decision"] == "kept"
    assert "holds zero" in str(report["reason"])
    assert _versions(params) == 1
    decision = client.get_registered_model(name).tags["last_decision"]
    assert decision == f"kept: {report['reason']}"

    _classifier("vit-0", "mixture", noise=0.05, seed=3)
    promote.run(params)
    report = _report()
    assert report["decision"] == "promoted"
    assert report["difference"]["low"] > 0  # type: ignore[index]
    assert _versions(params) == 2
    after = client.get_model_version_by_alias(name, "champion")
    assert after.tags["output_hash"] == tracking.dvc_hash(best)
    runs = client.search_runs([tracking.experiment_id(client, "classifier")])
    assert sorted(run.data.tags["decision"] for run in runs) == [
        "kept",
        "promoted",
        "promoted",
        "unchanged",
    ]


def test_a_champion_of_other_validation_images_is_scored_again(params: Params) -> None:
    promote.run(params)
    _corpus(first=1000)
    for arm, seed in (("real", 4), ("mixture", 5)):
        _classifier("vit-0", arm, noise=0.05, first=1000, seed=seed)
    split = promote.validation_split()
    present = registry.champion(tracking.connect(), params.promote.model_name)
    assert present is not None
    again = promote.rescore(present.folder, split)
    assert again.index.equals(split.index)
    promote.run(params)
    report = _report()
    # Random weights cannot hold against predictions that are nearly the truth.
    assert report["decision"] == "promoted"
    assert report["champion_before"]["validation_auc"] == promote.auc(again)  # type: ignore[index]


def test_report_has_the_same_bytes_in_another_store(
    params: Params, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty_store: Path
) -> None:
    promote.run(params)
    first = paths.PROMOTE_REPORT.read_bytes()
    shutil.copy(empty_store, tmp_path / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    promote.run(params)
    assert paths.PROMOTE_REPORT.read_bytes() == first


@pytest.mark.slow
def test_two_workers_that_promote_at_once_register_one_champion(
    params: Params, tmp_path: Path
) -> None:
    text = PARAMETERS.read_text().replace("seeds: [0, 1, 2]", "seeds: [0]")
    environment = {**os.environ, "DVC_ROOT": str(tmp_path)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    code = "import sys; sys.argv[1:] = ['promote']; from dermaflux.cli import main; main()"
    copies = [tmp_path / ".dvc" / "tmp" / name for name in ("one", "two")]
    workers = []
    for copy in copies:
        copy.mkdir(parents=True)
        for folder in (paths.CORPUS, paths.CLASSIFIERS):
            shutil.copytree(folder, copy / folder)
        (copy / "params.yaml").write_text(text)
        workers.append(subprocess.Popen([sys.executable, "-c", code], cwd=copy, env=environment))
    assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    decisions = [json.loads((copy / paths.PROMOTE_REPORT).read_text()) for copy in copies]
    assert sorted(one["decision"] for one in decisions) == ["promoted", "unchanged"]
    assert _versions(params) == 1


def test_candidates_are_ordered_by_auc_then_name(params: Params) -> None:
    tied = _classifier("vit-0", "real", noise=1.0, seed=2)
    assert [item.arm for item in promote.candidates(params)] == ["mixture", "real"]
    assert promote.candidates(params)[0].auc == promote.candidates(params)[1].auc
    (tied / "validation.csv").unlink()
    with pytest.raises(InputError, match=r"validation\.csv is missing"):
        promote.candidates(params)


def test_predict_speaks_of_every_image(
    params: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lesion, text = tmp_path / "lesion.png", tmp_path / "notes.jpg"
    lesion.write_bytes(_image(7, True))
    text.write_text("not an image")
    with pytest.raises(InputError, match=r"no model 'lesion-vit'.*dermaflux promote"):
        predict.run(params, [lesion])
    promote.run(params)
    with pytest.raises(InputError, match=r"notes\.jpg .* not a whole image"):
        predict.run(params, [lesion, text])
    with pytest.raises(InputError, match=r"absent\.png is not a file"):
        predict.run(params, [tmp_path / "absent.png"])
    capsys.readouterr()
    predict.run(params, [lesion])
    printed = capsys.readouterr().out
    assert "% malignant" in printed
    assert "Not a medical device" in printed
    assert "version 1 (vit-0/mixture)" in printed


def test_registered_model_scores_json_requests_like_the_trainer(params: Params) -> None:
    import mlflow
    from mlflow.pyfunc import scoring_server

    from dermaflux.classifiers import supervised

    promote.run(params)
    encoded = _image(7, True)
    model, config = supervised.load(paths.CLASSIFIERS / "vit-0" / "mixture")
    expected = supervised.probabilities(model, config, registry.prepare(encoded, SIDE)[None])
    served = mlflow.pyfunc.load_model(f"models:/{params.promote.model_name}@champion")
    request = {"dataframe_records": [{"image": base64.b64encode(encoded).decode()}]}
    answer = scoring_server.invocations(
        json.dumps(request), "application/json", served, served.metadata.get_input_schema()
    )
    row = json.loads(answer.response)["predictions"][0]
    np.testing.assert_allclose(row["probability"], expected[0], rtol=1e-6)
    assert row["label"] in ("benign", "malignant")
    assert served.input_example is not None
