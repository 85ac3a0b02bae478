"""The held-out test: files, figures and the paired difference."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import toy_corpus as toy
from sklearn.metrics import roc_auc_score

from dermaflux import paths, tracking
from dermaflux.classifiers import evaluate, train
from dermaflux.errors import InputError
from dermaflux.params import Evaluate

SETTINGS = Evaluate(bootstrap_samples=500)


def sample(shift: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = (np.arange(200) < 80).astype(int)
    return labels, 1 / (1 + np.exp(-generator.normal(shift * labels, 1)))


def test_difference_is_paired() -> None:
    labels, good = sample(1.5, 0)
    nearly = good + 1e-3 * np.random.default_rng(1).random(len(good))
    threshold = {"real": 0.5, "mixture": 0.5}
    arms = {"real": good, "mixture": nearly}
    found = evaluate.compare(labels, np.arange(200), arms, threshold, SETTINGS)
    width = found["real"]["auc_high"] - found["real"]["auc_low"]
    paired = found["difference"]["auc_high"] - found["difference"]["auc_low"]
    assert paired < 0.05 * width
    assert found["difference"]["auc"] == pytest.approx(
        found["mixture"]["auc"] - found["real"]["auc"]
    )


def test_interval_holds_the_figure_and_json_is_plain_numbers() -> None:
    labels, scores = sample(1.0, 2)
    found = evaluate.compare(labels, np.arange(200), {"real": scores}, {"real": 0.5}, SETTINGS)
    assert "difference" not in found
    real = found["real"]
    for name in ("auc", "accuracy", "balanced_accuracy", "f1", "brier", "sensitivity_at_95"):
        assert real[f"{name}_low"] <= real[name] <= real[f"{name}_high"], name
    assert json.loads(json.dumps(found)) == found


def test_a_cell_from_training_to_report(tmp_path, monkeypatch) -> None:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow itself sets it
    toy.write()
    parameters = toy.parameters()
    with pytest.raises(InputError, match="has no arm 'real'; run `dermaflux train"):
        evaluate.run(parameters, "resnext", 0)
    train.run(parameters, "resnext", 0)
    evaluate.run(parameters, "resnext", 0)
    report = json.loads((paths.EVALUATIONS / "resnext-0.json").read_text())
    folder = paths.EVALUATIONS / "resnext-0"
    predictions = pd.read_csv(folder / "predictions.csv")
    assert report["test"] == {"images": 62, "malignant": 32}
    for arm in ("real", "mixture"):
        expected = roc_auc_score(predictions["label"] == "malignant", predictions[arm])
        assert report[arm]["auc"] == pytest.approx(expected)
    sources = pd.read_csv(folder / "sources.csv").set_index(["arm", "source"])
    assert sources.loc[("real", "kaggle1"), "images"] == 12
    assert np.isnan(sources.loc[("real", "kaggle1"), "auc"])  # one class only
    assert list(pd.read_csv(folder / "roc" / "real.csv")) == ["fpr", "tpr"]

    before = {path: path.read_bytes() for path in paths.EVALUATIONS.rglob("*.*") if path.is_file()}
    evaluate.run(parameters, "resnext", 0)
    assert {path: path.read_bytes() for path in before} == before

    client = tracking.connect()
    experiment = client.get_experiment_by_name("classifier")
    runs = client.search_runs([experiment.experiment_id], "tags.stage = 'evaluate'")
    runs = {run.data.params["arm"]: run for run in runs}
    mixture = runs["mixture"]
    assert mixture.data.params["ratio"] == "0.5"
    assert mixture.data.metrics["test_auc"] == pytest.approx(report["mixture"]["auc"])
    trained = client.get_run(mixture.data.tags["train_run"])
    assert trained.info.run_name == "train/resnext-mixture-0"
    best = trained.data.metrics["best_auc"]
    assert mixture.data.metrics["validation_auc"] == pytest.approx(best)
    assert [file.path for file in client.list_artifacts(mixture.info.run_id)] == ["roc.png"]
