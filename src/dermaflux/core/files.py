"""Files and folders that appear whole or not at all, locks, and what to say of damaged files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shlex
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux.errors import InputError, one_line, quoted, redacted

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

_TELL_SECONDS = 1.0
_WRITER_SECONDS = 10.0
"""Most outputs are written in less: two evaluations take turns, a second training is told."""


@contextmanager
def locked(path: Path, busy: str, seconds: float | None = None) -> Iterator[None]:
    """Hold the lock file `path`, which the system releases when the process ends in any way.

    While another process holds it, one line says so after a second: `busy` (what cannot be done
    meanwhile), then that process, its host and its start. After `seconds` that sentence is an
    `InputError`; None waits without limit. A thread that holds the lock takes it again at once.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path.absolute(), is_singleton=True)
    patience = -1.0 if seconds is None else seconds
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=patience if 0 <= patience < _TELL_SECONDS else _TELL_SECONDS)
        except Timeout:
            print(f"{busy} while {_holder(path)}; waiting", file=sys.stderr, flush=True)
            lock.acquire(timeout=patience if patience < 0 else max(0.0, patience - _TELL_SECONDS))
    except Timeout:
        raise InputError(
            f"{busy} while {_holder(path)}; after {seconds:g} s of waiting this process stops: "
            "start it again when the other one has ended, or stop that one"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise InputError(
            f"the lock file {quoted(str(path))} cannot be used ({error}); make its folder writable"
        ) from None
    try:
        if lock.lock_counter == 1:
            _holder_file(path).write_text(_myself(), encoding="utf-8")
        yield
    finally:
        if lock.lock_counter == 1:
            _holder_file(path).unlink(missing_ok=True)
        lock.release()


def _holder_file(path: Path) -> Path:
    # Not the lock file itself, which some systems let nobody else read while it is locked.
    return path.with_name(f"{path.name}.holder")


def _myself() -> str:
    command = redacted(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))[:120]
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {socket.gethostname()} ({command}) has held it since {since}"


def _holder(path: Path) -> str:
    try:
        text = _holder_file(path).read_text(encoding="utf-8", errors="replace")[:300]
    except OSError:
        text = ""
    return text if text and text.isprintable() else "another process holds it"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Keep other processes from writing the output `folder`; `InputError` names one that does."""
    with locked(_output_lock(folder), f"{folder} cannot be written", _WRITER_SECONDS):
        yield


def _output_lock(folder: Path) -> Path:
    """The lock of an output: in its checkout, or its copy for an experiment, not among outputs.

    Outside a checkout, or where that is read-only, in the system's folder for temporary files.
    """
    output = folder.parent.resolve() / folder.name
    name = f"{hashlib.sha256(os.fsencode(output)).hexdigest()[:32]}.lock"
    for parent in output.parents:
        if (parent / ".dvc").is_dir() and os.access(parent, os.W_OK):
            return parent / ".dermaflux" / "locks" / name
    owner = os.getuid() if hasattr(os, "getuid") else ""
    return Path(tempfile.gettempdir()) / f"dermaflux-locks-{owner}" / name


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` on success and vanishes on failure.

    One process at a time: a second one stops with an `InputError` that names the first.
    """
    with writing(folder):
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


def require_empty(folder: Path, purpose: str) -> None:
    """Raise `InputError` where a command would write `folder` over something else."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        kind = "holds files already" if folder.is_dir() else "is a file"
        raise InputError(f"{quoted(str(folder))} {kind}; name a new folder for {purpose}")


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
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


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
        if error.errno in (errno.EISDIR, errno.EACCES, errno.EPERM, errno.EINVAL, None):
            raise damaged(path, error, stage) from None
        raise  # the disk's fault, not the file's
    except KeyError as error:
        raise damaged(path, f"it has no {error}", stage) from None
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise damaged(path, error, stage) from None


def read_json(path: Path, stage: str, *needed: str) -> dict[str, Any]:
    """The JSON object in a file that `stage` wrote, which has the keys `needed`.

    Raises `InputError` when the file is absent, damaged or something else.
    """
    with reading(path, stage):
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, not an object")
        for key in needed:
            _ = content[key]
        return content


def read_csv(
    path: Path,
    stage: str,
    numbers: Sequence[str] = (),
    texts: Sequence[str] = (),
    may_be_empty: bool = False,
    index: str | None = None,
    **options: Any,
) -> pd.DataFrame:
    """A table of comma-separated values that `stage` wrote, with `texts` read as text.

    Raises `InputError` when the file is absent or damaged, lacks one of the columns, or when a
    column of `numbers` holds anything but finite numbers, or no row where that may not be;
    `options` are those of pandas. With `index`, rows are found by that column, and a value that
    occurs twice is an error, too.
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
        if numbers and rows.empty and not may_be_empty:
            raise ValueError("it has no rows")
        for name in numbers:
            if not np.isfinite(rows[name].to_numpy(dtype=float)).all():
                raise ValueError(f"column {name} holds a value that is not finite")
        if index is not None:
            rows = rows.set_index(index)
            if rows.index.has_duplicates:
                raise ValueError(f"a value of {index} occurs twice")
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
