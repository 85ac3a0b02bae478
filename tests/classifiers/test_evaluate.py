"""The held-out test: files, figures and the paired difference."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import toy_corpus as toy
from sklearn.metrics import roc_auc_score

from dermaflux import paths
from dermaflux.classifiers import evaluate, train
from dermaflux.classifiers.data import samples
from dermaflux.classifiers.model import network
from dermaflux.core import table
from dermaflux.core.files import write_json
from dermaflux.errors import InputError
from dermaflux.tracking import runs as tracking
from dermaflux.validation import mixture_gate


@pytest.mark.slow
def test_a_cell_from_training_to_report(tmp_path, monkeypatch) -> None:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow itself sets it
    toy.write()
    parameters = toy.parameters()
    with pytest.raises(InputError, match="has no arm 'real'; run `dermaflux train"):
        evaluate.run(parameters, "resnext", 0)
    train.run(parameters, "resnext", 0, mixture_gate.check)
    evaluate.run(parameters, "resnext", 0)
    report = json.loads((paths.EVALUATIONS / "resnext-0.json").read_text())
    folder = paths.EVALUATIONS / "resnext-0"
    predictions = pd.read_csv(folder / "predictions.csv")
    assert report["test"] == {"images": 62, "majority_accuracy": 32 / 62, "malignant": 32}
    for arm in ("real", "mixture"):
        expected = roc_auc_score(predictions["label"] == "malignant", predictions[arm])
        assert report[arm]["auc"] == pytest.approx(expected)
    assert report["differences"]["mixture"]["auc"] == pytest.approx(
        report["mixture"]["auc"] - report["real"]["auc"]
    )
    groups = pd.read_csv(folder / "groups.csv").set_index(["arm", "grouping", "group"])
    alone = groups.loc[("real", "source", "kaggle1")]
    assert (alone["images"], alone["note"]) == (12, "no benign images")
    assert pd.isna(alone["auc"])
    assert groups.loc[("real", "all", "all"), "auc"] == pytest.approx(report["real"]["auc"])
    assert list(pd.read_csv(folder / "roc" / "real.csv")) == ["fpr", "tpr"]
    curve = pd.read_csv(folder / "reliability" / "mixture.csv")
    assert curve.groupby("calibrated")["images"].sum().to_list() == [62, 62]
    decision = pd.read_csv(folder / "decision" / "real.csv")
    assert decision["treat_all"].iloc[0] == pytest.approx((32 - 30 / 99) / 62)

    before = {path: path.read_bytes() for path in paths.EVALUATIONS.rglob("*.*") if path.is_file()}
    evaluate.run(parameters, "resnext", 0)
    assert {path: path.read_bytes() for path in before} == before

    client = tracking.connect()
    experiment = client.get_experiment_by_name("classifier")
    runs = client.search_runs([experiment.experiment_id], "tags.stage = 'evaluate'")
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    mixture = next(run for run in children if run.data.params["arm"] == "mixture")
    assert mixture.data.params["ratio"] == "0.5"
    assert mixture.data.metrics["majority_accuracy"] == 32 / 62
    assert mixture.data.metrics["source_auc"] == report["mixture"]["source_auc"]
    assert mixture.data.metrics["AUC"] == pytest.approx(report["mixture"]["auc"])
    trained = client.get_run(mixture.data.tags["train_run"])
    best = trained.data.metrics["best_auc"]
    assert mixture.data.metrics["validation_auc"] == pytest.approx(best)
    names = {file.path for file in client.list_artifacts(mixture.info.run_id)}
    assert {"roc.png", "confusion.png", "reliability.png", "decision.png"} <= names


@pytest.mark.slow
def test_a_cell_of_diagnoses(tmp_path, monkeypatch) -> None:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    toy.write()
    shipped = toy.parameters().model_dump(by_alias=True)
    settings = {**shipped["train"], "labels": "diagnosis", "arms": ["real"], "epochs": 2}
    parameters = toy.parameters(real_fraction=0.5, train=settings)
    train.run(parameters, "resnext", 0, mixture_gate.check)
    # What is no class among the test images must not vanish unsaid.
    rows = table.metadata(paths.CORPUS, split="test")
    config = json.loads((paths.CLASSIFIERS / "resnext-0/real/config.json").read_text())
    evaluate.run(parameters, "resnext", 0)
    report = json.loads((paths.EVALUATIONS / "resnext-0.json").read_text())
    assert list(report["test"]["per_class"]) == config["classes"]
    counted = report["test"]["images"] + sum(report["test"]["left_out"].values())
    assert counted == len(rows)
    predictions = pd.read_csv(paths.EVALUATIONS / "resnext-0" / "predictions.csv")
    shares = predictions[[f"real/{name}" for name in config["classes"]]]
    assert shares.sum(axis=1).to_numpy() == pytest.approx(1)
    aucs = [
        roc_auc_score(predictions["label"] == name, predictions[f"real/{name}"])
        for name in config["classes"]
    ]
    assert report["real"]["mauc"] == pytest.approx(sum(aucs) / len(aucs))
    assert "validation_mauc" in report["real"]


def test_arms_with_the_same_files_are_scored_once(workspace, monkeypatch) -> None:
    config = network.configure(toy.parameters().train.models["resnext"], 32)
    for arm, seed in (("real", 0), ("more_real", 1), ("real_x2", 1)):
        folder = paths.CLASSIFIERS / "resnext-0" / arm
        folder.mkdir(parents=True)
        torch.manual_seed(seed)
        network.save_weights(network.build(config).state_dict(), folder / "model.safetensors")
        write_json(folder / "config.json", config)
    load, loaded = network.load, []

    def counted(folder: Path) -> tuple[torch.nn.Module, dict]:
        loaded.append(folder.name)
        return load(folder)

    monkeypatch.setattr(network, "load", counted)
    scores = evaluate._score("resnext-0", ["real", "more_real", "real_x2"], 16)
    assert loaded == ["real", "more_real"]
    pixels = samples.load_split(paths.CORPUS, "test", 32)[1].pixels
    for arm, scored in scores.arms.items():
        expected = network.probabilities(*load(paths.CLASSIFIERS / "resnext-0" / arm), pixels, 16)
        assert scored.probability.tolist() == expected.tolist(), arm
    assert scores.arms["real"].probability.tolist() != scores.arms["real_x2"].probability.tolist()


def test_stages_load_libraries_when_they_need_them() -> None:
    heavy = ["timm", "torchvision", "torch._dynamo", "mlflow", "matplotlib", "sklearn", "scipy"]
    code = (
        "import sys, dermaflux.classifiers.evaluate, dermaflux.classifiers.train\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout.strip() == "[]", printed.stderr
