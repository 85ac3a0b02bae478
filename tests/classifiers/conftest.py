"""The workspace of the toy corpus, in which classifiers are trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy_corpus


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """80 benign and 50 malignant training images, 30 and 30 synthetic ones."""
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow itself sets it
    toy_corpus.write()
    return tmp_path
