"""The digest of a stage's code, on copies of this package with one edit each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dermaflux.core import code_digest

PACKAGE = Path(code_digest.__file__).parents[1]
STAGES = [
    ("train", {"recipe": "supervised"}), ("finetune", {"generator": "flux_lora"}),
    ("report", {}), ("pretrain", {"recipe": "mae"}), ("distill", {}),
]  # fmt: skip
PRINT = f"""
from dermaflux.core.code_digest import stage_digest
for stage, choices in {STAGES!r}:
    print(stage, stage_digest(stage, **choices))
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("original")
    shutil.copytree(PACKAGE, source / "dermaflux", ignore=shutil.ignore_patterns("__pycache__"))
    return source


def digests(source: Path) -> dict[str, str]:
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    shown = subprocess.check_output([sys.executable, "-c", PRINT], env=environment, text=True)
    return dict(line.split() for line in shown.splitlines())


def append(path: Path) -> None:
    path.write_text(path.read_text() + "\n")


def rename(path: Path) -> None:
    path.rename(path.with_name("renamed.py"))


def add(path: Path) -> None:
    path.with_name("added.py").write_text("")


@pytest.mark.parametrize(
    ("file", "edit", "changed"),
    [
        ("training/ema.py", append, {"train", "finetune", "pretrain", "distill"}),
        ("training/ema.py", rename, {"train", "finetune", "pretrain", "distill"}),
        ("training/ema.py", add, {"train", "finetune", "pretrain", "distill"}),
        (
            "core/table/reading.py",
            append,
            {"train", "finetune", "report", "pretrain", "distill"},
        ),
        ("classifiers/recipes/mae/views.py", append, {"pretrain"}),
        ("classifiers/recipes/distill/teacher.py", append, {"distill"}),
        ("classifiers/recipes/supervised/recipe.py", append, {"train"}),
        ("classifiers/train/loop.py", append, {"train", "distill"}),
        ("reporting/report.py", append, {"report"}),
        ("sweeps/probe.py", append, set()),
        ("tracking/runs.py", append, set()),
    ],
)
def test_an_edit_changes_the_digest_of_the_stages_it_can_decide_and_no_other(
    tmp_path: Path, original: Path, file: str, edit: Callable[[Path], None], changed: set[str]
) -> None:
    before = {stage: code_digest.stage_digest(stage, **choices) for stage, choices in STAGES}
    copy = tmp_path / "elsewhere"
    shutil.copytree(original, copy)
    edit(copy / "dermaflux" / file)
    after = digests(copy)
    assert {stage for stage in after if after[stage] != before[stage]} == changed


def test_every_folder_and_module_of_the_table_exists() -> None:
    for stage, entries in code_digest.STAGE_CODE.items():
        for entry in entries:
            path = PACKAGE / entry.format(generator="flux_lora", recipe="supervised")
            assert path.is_dir() or path.is_file(), (stage, entry)
