"""A backbone trained for two steps, with a corpus: real files, a few seconds."""

from __future__ import annotations

import pytest
from small_generator import TINY, Workspace, corpus_row, write_corpus

from dermaflux.tracking.runs import Silent


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    from dermaflux.generators.tiny_flux import training

    root = tmp_path_factory.mktemp("generators")
    (root / ".dvc").mkdir()
    rows = [corpus_row(index, 256 if index % 4 == 3 else 128) for index in range(9)]
    rows.append(corpus_row(9, 128, split="test"))
    rows += [corpus_row(index, 128, split="validation") for index in (10, 12, 13)]
    corpus, captions = write_corpus(root, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DVC_ROOT", raising=False)
        patch.chdir(root)
        training.train(TINY, 0, root / "backbone", Silent())
    return Workspace(root, corpus, captions, root / "backbone")


@pytest.fixture
def here(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The workspace as working directory, so that checkpoints stay inside it."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(workspace.root)
    return workspace
