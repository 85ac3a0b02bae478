"""Cells that train in two processes at once are those that one process trains in turn."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import toy_corpus as toy

from dermaflux import paths
from dermaflux.classifiers import train
from dermaflux.validation import mixture_gate

# One start of the interpreter for both; each is a process of its own from before any work.
TWO = """
import os
import toy_corpus as toy
from dermaflux.classifiers import train
from dermaflux.validation import mixture_gate
children = []
for seed in (0, 1):
    child = os.fork()
    if not child:
        train.run(toy.parameters(), "vit", seed, mixture_gate.check)
        os._exit(0)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
"""


def cells() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in paths.CLASSIFIERS.rglob("*") if path.is_file()}


def test_two_cells_at_once_are_bit_equal_to_the_same_in_turn(workspace: Path) -> None:
    for seed in (0, 1):
        train.run(toy.parameters(), "vit", seed, mixture_gate.check)
    in_turn = cells()
    assert {path.parts[-3] for path in in_turn} == {"vit-0", "vit-1"}
    shutil.rmtree(paths.CLASSIFIERS)
    shutil.rmtree(".dermaflux")
    subprocess.run(
        [sys.executable, "-c", TWO],
        check=True,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(Path(toy.__file__).parent), *sys.path])}
        | {"OMP_NUM_THREADS": "1"},
    )
    assert cells() == in_turn
