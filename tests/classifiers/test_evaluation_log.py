"""The MLflow run of an evaluated arm in a real store, and the view that shows such runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import toy_corpus as toy
from sklearn.metrics import roc_auc_score

from dermaflux import paths
from dermaflux.classifiers.logging import evaluation_log, mlflow_runs, mlflow_view
from dermaflux.core.files import write_json
from dermaflux.tracking import runs as tracking


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    for cell in ("vit-0", "vit-1"):
        config = {"n_real": 60, "threshold": 0.5, "temperature": 2.0, "cell": cell}
        write_json(paths.CLASSIFIERS / cell / "mixture" / "config.json", config)
        write_json(paths.EVALUATIONS / f"{cell}.json", {})
        write_json(paths.EVALUATIONS / cell / "groups.json", {})
    write_json(paths.CORPUS / "rows.json", {})
    return tmp_path


def test_a_run_is_found_by_the_view_and_holds_what_the_view_shows(workspace) -> None:
    labels = np.arange(40) % 2
    scores = np.clip(0.3 * labels + np.linspace(0, 0.7, 40), 0, 1)
    area = float(roc_auc_score(labels, scores))
    figures = {
        "auc": area,
        "auc_low": 0.4,
        "auc_high": 1.0,
        "accuracy": 0.7,
        "majority_accuracy": 0.5,
    }
    with tracking.start(mlflow_runs.TRAINING, "vit mixture", {}, []) as training:
        training.outputs(paths.CLASSIFIERS / "vit-0" / "mixture")
    parameters = toy.parameters()
    for seed, auc in ((0, area), (1, area - 0.1)):
        arm = {**figures, "auc": auc}
        evaluation_log.log(parameters, "vit", seed, "mixture", arm, labels, scores)

    client = tracking.connect()
    experiment = client.get_experiment_by_name(mlflow_runs.TESTING)
    state = mlflow_view.state()
    (parent,) = client.search_runs([experiment.experiment_id], state["searchFilter"])
    (run,) = client.search_runs([experiment.experiment_id], "params.seed = '0'")
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert run.data.metrics["AUC"] == pytest.approx(area)
    assert parent.data.metrics["AUC"] == pytest.approx(area - 0.05)
    assert run.data.tags["train_run"] == training.run_id
    assert (run.data.params["arm"], run.data.params["ratio"]) == ("mixture", "0.5")
    (used,) = [entry.dataset for entry in run.inputs.dataset_inputs]
    profile = json.loads(used.profile)
    assert (profile["benign"], profile["malignant"]) == (20, 20)
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    images = {f"{name}.png" for name in ("confusion", "decision", "reliability", "roc")}
    assert names == {*images, "figures.json"}

    # A chart of a name that no run has would stay empty.
    for chart in state["compareRunCharts"]:
        keys = [chart["metricKey"]] if "metricKey" in chart else [chart["yaxis"]["key"]]
        assert set(keys) <= set(parent.data.metrics)
        if "xaxis" in chart:
            assert chart["xaxis"]["key"] in parent.data.params
    for column in state["selectedColumns"]:
        kind, name = column.replace("`", "").split(".", 1)
        assert kind == "tags" or name in getattr(parent.data, kind), column

    tag = f"mlflow.sharedViewState.{mlflow_view.KEY}"
    stored = json.loads(experiment.tags[tag])
    assert json.loads(stored["state"]) == state
    client.set_experiment_tag(experiment.experiment_id, tag, "changed by somebody")
    mlflow_view.offer(client, experiment.experiment_id)
    assert client.get_experiment(experiment.experiment_id).tags[tag] == "changed by somebody"
