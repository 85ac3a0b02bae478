"""Atomic checkpoints keyed by a fingerprint of inputs and parameters.

They live in `.dermaflux/checkpoints/<stage>/<fingerprint>` of the main checkout, because DVC
removes a stage's outputs before it runs the stage again. The fingerprint covers inputs, parameters
and, through `code_digest.stage_digest`, the code, so stale work is never resumed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux.core.files import atomic_file, locked, writing
from dermaflux.errors import one_line
from dermaflux.paths import project_root

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer


def fingerprint(**parts: Any) -> str:
    """Hex digest of JSON-serialisable parts: input hashes, parameters, the code's digest."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


class Checkpoint:
    """One resumable state and the files beside it, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "state.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Replace the saved state (tensors, numbers, strings, nested) in one atomic step."""
        import torch

        with atomic_file(self._file) as partial, partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())

    def load(self, *needed: str) -> dict[str, Any] | None:
        """The saved state, or None when there is none; only tensors and plain values load.

        A file that is not such a state, or lacks one of the keys `needed`, is reported and removed,
        as if it had never been written: a stage that cannot read its checkpoint starts over. So is
        one with a changed bit, by the checksums in the file, which torch writes and does not check.
        """
        import torch

        if not self._file.exists():
            return None
        try:
            with zipfile.ZipFile(self._file) as archive:
                if (changed := archive.testzip()) is not None:
                    raise ValueError(f"{changed} in it is not as it was written")
            state: dict[str, Any] = torch.load(self._file, weights_only=True, map_location="cpu")
            for key in needed:
                _ = state[key]
        except Exception as error:  # of torch, pickle and zipfile, a dozen kinds
            # A cut file makes them seek before its beginning, which the system calls EINVAL.
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            self.reject(error)
            return None
        return state

    def fits(self, model: Mapping[str, Tensor], *stored: Mapping[str, Tensor]) -> bool:
        """Whether all stored weights have the model's names and shapes; else reject the state."""
        try:
            for weights in stored:
                if weights.keys() != model.keys():
                    raise ValueError("it has other weights")
                for name, tensor in model.items():
                    if weights[name].shape != tensor.shape:
                        raise ValueError(f"{name} has another shape")
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            self.reject(f"it does not match this model: {error}")
            return False
        return True

    def load_optimizer(self, optimizer: Optimizer, stored: dict[str, Any]) -> bool:
        """Give an optimiser its stored state; False, and reject the state, if it does not fit."""
        try:
            optimizer.load_state_dict(stored)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            self.reject(f"it does not match this optimiser: {error}")
            return False
        return True

    def reject(self, problem: object) -> None:
        """Remove a state that cannot be continued from, and say so."""
        print(
            f"{one_line(self._file)} is damaged ({one_line(problem, 200)}) and removed; this work "
            "starts over",
            flush=True,
        )
        self._file.unlink(missing_ok=True)

    def part(self, name: str) -> Checkpoint:
        """A separate state for one part of the work; discarded with the whole."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        return Checkpoint(folder)

    def file(self, name: str) -> Path:
        """Path for a part of the work in another format, written by the caller."""
        return self._folder / name

    def discard(self) -> None:
        """Delete the folder: the stage's output has replaced it."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _unfinished(folder: Path) -> bool:
    return any(path.is_dir() and any(path.iterdir()) for path in folder.glob("*"))


@contextmanager
def checkpoint(
    stage: str,
    key: str,
    main: bool = True,
    lasting: bool = False,
    output: Path | None = None,
) -> Iterator[Checkpoint]:
    """Open the checkpoint of `key`; a second process with the same key waits for the first.

    Of processes that share one run, only the main one holds the lock; the others read. A new key
    beside unfinished work is reported, unless checkpoints of the stage are `lasting`.
    Where another process makes the folder `output`, an `InputError` names it before any work.
    """
    folder = project_root() / ".dermaflux" / "checkpoints" / stage / key
    if not main:
        yield Checkpoint(folder)
        return
    if not folder.exists() and not lasting and _unfinished(folder.parent):
        print(
            f"{stage}: starts anew, since the unfinished work in {folder.parent} has other inputs, "
            "parameters or code; delete that folder if nobody will continue it",
            flush=True,
        )
    with (
        nullcontext() if output is None else writing(output),
        locked(folder.with_suffix(".lock"), f"{stage}: the same work cannot start"),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        yield Checkpoint(folder)
