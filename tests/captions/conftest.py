"""The small vision model, built once per process."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a randomly initialised three-million-parameter Mllama with its processor."""
    from small_vision import save

    return save(tmp_path_factory.mktemp("vision") / "small-mllama")
