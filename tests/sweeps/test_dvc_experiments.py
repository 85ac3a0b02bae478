"""What is said where DVC cannot be asked for its experiments."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dermaflux.errors import InputError
from dermaflux.sweeps import dvc_experiments


def test_a_folder_without_dvc_and_a_locked_repository_give_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvc.cli import main
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="not a DVC repository; run the command in a checkout"):
        dvc_experiments.finished()
    subprocess.run(["git", "init", "-q"], check=True)
    with pytest.raises(InputError, match="git rev-parse failed .* with a commit"):
        dvc_experiments.commit("HEAD")
    assert main(["init", "-q"]) == 0
    assert dvc_experiments.finished() == {}
    with (
        Repo() as repo,
        repo.lock,
        pytest.raises(InputError, match="another DVC command has locked the repository"),
    ):
        dvc_experiments.finished()
