from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import small_registry

from dermaflux.params import Params, load


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite store: making one takes seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)
    return path


@pytest.fixture
def unpromoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Params:
    """The parameters of a workspace with two trained classifiers and an empty registry."""
    monkeypatch.chdir(tmp_path)
    # MLflow keeps the last store in this variable, for child processes; a test starts without.
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns" / "mlflow.db")
    small_registry.corpus()
    small_registry.classifier("vit-0", "real", noise=2.0, seed=1)
    small_registry.classifier("vit-0", "mixture", noise=1.0, seed=2)
    params = load.load(small_registry.PARAMETERS)
    train = params.train.model_copy(update={"seeds": [0], "arms": ["real", "mixture"], "curve": []})
    return params.model_copy(update={"train": train})
