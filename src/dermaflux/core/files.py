"""Files and folders that appear whole or not at all, and what to say of damaged ones."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux.errors import InputError, one_line

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


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
    detail = one_line(problem, 200) or type(problem).__name__
    return InputError(
        f"{one_line(path)} is damaged ({detail}); delete it and run {stage}, which writes it"
    )


@contextmanager
def reading(path: Path, stage: str) -> Iterator[None]:
    """Inside the block, a file of ours that is absent or has other content becomes one sentence.

    The block may also use what it has read, where a value of another kind would show itself.
    """
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{one_line(path)} is missing; run {stage}, which writes it") from None
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.EACCES, errno.EPERM, None):
            raise damaged(path, error, stage) from None
        raise  # the disk's fault, not the file's
    except KeyError as error:
        raise damaged(path, f"it has no {error}", stage) from None
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise damaged(path, error, stage) from None


def read_json(path: Path, stage: str, *needed: str) -> Any:
    """Content of a JSON file that `stage` wrote; with `needed`, an object that has these keys.

    Raises `InputError` when the file is absent, damaged or something else.
    """
    with reading(path, stage):
        content = json.loads(path.read_text(encoding="utf-8"))
        if needed and not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__} and no object")
        for key in needed:
            _ = content[key]
        return content


def read_csv(
    path: Path,
    stage: str,
    numbers: Sequence[str] = (),
    texts: Sequence[str] = (),
    **options: Any,
) -> pd.DataFrame:
    """A table of comma-separated values that `stage` wrote, with `texts` read as text.

    Raises `InputError` when the file is absent or damaged, lacks one of the columns, or when a
    column of `numbers` holds anything but finite numbers; `options` are those of pandas.
    """
    import numpy as np
    import pandas as pd

    with reading(path, stage):
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) and file.read() != b"\n":
                raise ValueError("it ends in the middle of a line")
        dtypes = dict.fromkeys(texts, str) | options.pop("dtype", {})
        rows: pd.DataFrame = pd.read_csv(path, dtype=dtypes, **options)
        for name in (*numbers, *texts):
            _ = rows[name]
        for name in numbers:
            if not np.isfinite(rows[name].to_numpy(dtype=float)).all():
                raise ValueError(f"column {name} holds a value that is no finite number")
        return rows


def read_tensors(path: Path, stage: str) -> dict[str, Tensor]:
    """Tensors of a safetensors file that `stage` wrote, in the CPU's memory.

    Raises `InputError` when the file is absent or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with reading(path, stage):
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(str(error)) from None
