"""Safetensors files from anywhere: the header first, checked, then the values, checked.

The library verifies offsets when it opens a file; what it does not, is here: names that occur
twice, a header larger than any adapter's, values that are not finite. Reads the file it is given.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dermaflux.errors import quoted

LARGEST_HEADER = 25_000_000
"""Bytes. An adapter of every layer of FLUX.1-dev has 0.2 MB; kohya's record of the training data,
which lists every tag, can add a few."""
FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
INTEGERS = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"}
_COMPUTABLE = {
    torch.float64: torch.float32,
    torch.float8_e4m3fn: torch.bfloat16,
    torch.float8_e5m2: torch.bfloat16,
}
_AGAIN = "download it again"
_CONVERT = "convert it to safetensors first, since a pickle can run code when it is opened"
_STARTS = (
    (b"version https://git-lfs", "is a Git LFS pointer", "run `git lfs pull` for the file"),
    (b"PK\x03\x04", "is a pickle or zip archive of PyTorch", _CONVERT),
    (b"\x80", "is a pickle", _CONVERT),
    (b"GGUF", "is a GGUF file", "give the safetensors file it was made from"),
    (b"<", "is a web page", "download the file itself, not its page"),
    (b"{", "is JSON", "give the .safetensors file that lies beside it"),
)
"""First bytes of what else is called .safetensors, what that is, and what to do."""


class UnreadableError(Exception):
    """A file that cannot be used; "<file> <problem>; <fix>" is the sentence."""

    def __init__(self, problem: str, fix: str = _AGAIN) -> None:
        super().__init__(problem)
        self.problem, self.fix = problem, fix

    @property
    def clause(self) -> str:
        """The problem with its subject, for sentences of another shape."""
        return f"it {self.problem}"


@dataclass(frozen=True)
class Entry:
    """A tensor as the header describes it."""

    dtype: str
    """The format's name, such as BF16."""
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """Everything of a file but the values."""

    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]

    def json(self, key: str) -> Any:
        """Metadata that is JSON; None where the key is absent, `UnreadableError` where broken."""
        text = self.metadata.get(key)
        if text is None:
            return None
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            problem = f"has metadata {key} that are not valid JSON: {quoted(text)}"
            raise UnreadableError(problem) from None


def read_header(path: Path) -> Header:
    """Names, dtypes, shapes and metadata; no value is read.

    Raises `UnreadableError` for what is no safetensors file, or a cut or contradictory one.
    """
    from safetensors import SafetensorError, safe_open

    try:
        described = _described(path)
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UnreadableError(_cause(error)) from None
    tensors = {
        name: Entry(entry["dtype"], tuple(entry["shape"]))
        for name, entry in described.items()
        if name != "__metadata__"
    }
    return Header(tensors, metadata)


def _described(path: Path) -> dict[str, Any]:
    """The header's JSON; its types are checked by the library, which opens the file next."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(64)
        if not start:
            raise UnreadableError("is empty")
        length = int.from_bytes(start[:8], "little")
        if start[8:9] != b"{" or size < 10 or length > size - 8:
            for first, problem, fix in _STARTS:
                if start.lstrip().startswith(first):
                    raise UnreadableError(problem, fix)
            if start[8:9] != b"{":
                raise UnreadableError("is not in the safetensors format")
            raise UnreadableError(
                f"says that its header has {length:,} bytes, and has {size:,} in all"
            )
        if length > LARGEST_HEADER:
            raise UnreadableError(
                f"has a header of {length / 1e6:,.0f} MB, where that of an adapter has at most "
                f"{LARGEST_HEADER / 1e6:.0f}",
                "give the file of an adapter",
            )
        file.seek(8)
        text = file.read(length)
    try:
        described = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"has a header that is not valid JSON ({str(error)[:100]})") from None
    if not isinstance(described, dict):
        raise UnreadableError("has a header that is not a table of tensors")
    if (missing := _missing(described, size - 8 - length)) > 0:
        raise UnreadableError(f"is cut short: {missing:,} of {size + missing:,} bytes are missing")
    return described


def _missing(described: dict[str, Any], present: int) -> int:
    """Bytes that the header describes and the file has not; 0 where it describes them wrongly."""
    ends = [0]
    for entry in described.values():
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if isinstance(offsets, list) and len(offsets) == 2 and isinstance(offsets[1], int):
            ends.append(offsets[1])
    return max(ends) - present


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        seen: set[str] = set()
        name = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise UnreadableError(f"names {quoted(name)} twice in its header")
    return values


def read_tensors(path: Path, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """Values by name, one tensor at a time: float8 as bf16, which holds it, float64 as float32.

    Raises `UnreadableError` for values that are not finite, or when the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            for name in names:
                tensor = file.get_tensor(name)
                tensor = tensor.to(_COMPUTABLE.get(tensor.dtype, tensor.dtype))
                if not bool(tensor.isfinite().all()):
                    raise UnreadableError(
                        f"holds values that are not finite in {quoted(name)}, as after a training "
                        "whose loss became nan",
                        "give an earlier step of that training",
                    )
                yield name, tensor
    except (SafetensorError, OSError) as error:
        raise UnreadableError(_cause(error)) from None


def _cause(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"cannot be read ({' '.join(text.split())[:150]})"
