"""Metrics and statistics are numpy and scipy: they import without torch and MLflow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dermaflux

SOURCE = Path(dermaflux.__file__).parent


def test_no_module_imports_torch_or_mlflow() -> None:
    modules = [
        f"dermaflux.{room}.{path.stem}"
        for room in ("metrics", "statistics")
        for path in sorted((SOURCE / room).glob("*.py"))
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {modules}: importlib.import_module(name.removesuffix('.__init__'))\n"
        "print([name for name in ('torch', 'mlflow') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout.strip() == "[]", printed.stderr
