"""Packs into the wheel, from their one place at the root, the files that `dermaflux init` lays out.

Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

_LISTED = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["dermaflux"]["layout"]


def layout() -> list[str]:
    """The files that pyproject.toml lists, those of a folder one by one."""
    files = []
    for name in _LISTED:
        path = Path(name)
        if not path.exists():
            raise FileNotFoundError(f"{name}, in tool.dermaflux.layout of pyproject.toml")
        files += sorted(path.rglob("*")) if path.is_dir() else [path]
    return [file.as_posix() for file in files if file.is_file() and "__pycache__" not in file.parts]


class BuildWithLayout(build_py):
    """`build_py`, and `dermaflux/layout`; an editable installation reads the checkout instead."""

    def run(self) -> None:
        """Copy the package, then the layout."""
        super().run()
        if self.editable_mode:
            return
        for name in layout():
            target = Path(self.build_lib, "dermaflux", "layout", name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(name, target)

    def get_source_files(self) -> list[str]:
        """What a source distribution holds, so that a wheel can be built from it."""
        return [*super().get_source_files(), *layout()]


setup(cmdclass={"build_py": BuildWithLayout})
