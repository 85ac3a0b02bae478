"""Files and folders that appear whole or not at all, and what to say of damaged ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dermaflux.errors import InputError


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` on success and vanishes on failure."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to, which becomes `path` on success and vanishes on failure."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
    except BaseException:
        partial.unlink(missing_ok=True)  # on a full disk, half a file keeps the next one out
        raise
    partial.rename(path)


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys and a final newline, so that equal content has equal bytes."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def damaged(path: Path, problem: object, stage: str) -> InputError:
    """The error for a file of ours that cannot be read; `stage` is the one that writes it."""
    detail = " ".join(str(problem).split())[:200] or type(problem).__name__
    return InputError(f"{path} is damaged ({detail}); delete it and run {stage}, which writes it")


def read_json(path: Path, stage: str) -> Any:
    """Content of a JSON file that `stage` wrote; `InputError` when absent or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; run {stage}, which writes it") from None
    except (ValueError, RecursionError, OSError) as error:
        raise damaged(path, error, stage) from None
