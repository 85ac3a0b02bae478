from __future__ import annotations

from pathlib import Path

import finished_stages
import pytest

from dermaflux.params import Params


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The parameters of a workspace whose stages have run."""
    monkeypatch.chdir(tmp_path)
    return finished_stages.write()
