"""What stands for a model here: released images and their classes, in files or Parquet tables.

A class is a word of the path, `benign` or `malignant`, as folder or within a name; in a table it is
a column called label. Reads the folder it is given; writes nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermaflux.core.hashing import sha256
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.generators.pool.report import Refused

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
_WORD = re.compile(r"(?<![a-z])(benign|malignant)(?![a-z])")
_ROWS = 200  # of a table, read at a time


@dataclass(frozen=True)
class ReleasedImage:
    """One released image."""

    name: str
    """Path relative to the folder, in a table followed by the row's number."""
    label: str
    sha256: str
    """Of the file's bytes."""


def labels_in(path: str) -> set[str]:
    """Classes named by a relative path, as words of folders or of the file's name."""
    return set(_WORD.findall(path.lower()))


def contents(folder: Path, wanted: set[str] | None = None) -> Iterator[tuple[str, str, bytes]]:
    """(name, class words, bytes) of every image, ordered by file; only `wanted` names when given.

    The class words are a label, several joined by "and", or empty. Raises `InputError` for a table
    without image or label column.
    """
    for path in _files(folder):
        name = path.name if path == folder else path.relative_to(folder).as_posix()
        if path.suffix.lower() == ".parquet":
            if wanted is None or any(image.startswith(f"{name}/") for image in wanted):
                yield from _rows(path, name, wanted)
        elif wanted is None or name in wanted:
            yield name, " and ".join(sorted(labels_in(name))), _read(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _files(folder: Path) -> list[Path]:
    """Images and tables, hidden ones and other files left out."""
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise InputError(
            f"synthesize.released.folder {folder} does not exist; name the downloaded folder"
        )
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _SUFFIXES | {".parquet"}
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _rows(path: Path, name: str, wanted: set[str] | None) -> Iterator[tuple[str, str, bytes]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if not {"image", "label"} <= set(file.schema_arrow.names):
                raise InputError(
                    f"{path} has columns {', '.join(file.schema_arrow.names)} and not image and "
                    "label; rename them"
                )
            names = _class_names(file.schema_arrow.metadata or {})
            number = 0
            for batch in file.iter_batches(_ROWS, columns=["image", "label"]):
                for row in batch.to_pylist():
                    row_name, number = f"{name}/{number:06d}", number + 1
                    if wanted is None or row_name in wanted:
                        yield row_name, _label(row["label"], names), _bytes(row["image"])
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(f"{path} cannot be read ({reason}); download it again") from None


def _class_names(metadata: dict[bytes, bytes]) -> list[str]:
    """Names of the integers of a Hugging Face ClassLabel column."""
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return [str(name) for name in features.get("label", {}).get("names", [])]


def _label(value: Any, names: list[str]) -> str:
    if isinstance(value, int) and 0 <= value < len(names):
        value = names[value]
    return " and ".join(sorted(labels_in(str(value))))


def _bytes(image: Any) -> bytes:
    content = image.get("bytes") if isinstance(image, dict) else image
    return content if isinstance(content, bytes) else b""


def digest(images: Sequence[ReleasedImage]) -> str:
    """Hash of the list of files, which stands for the weights they were made with."""
    lines = sorted(f"{image.sha256} {image.name}" for image in images)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def listing(folder: Path) -> tuple[list[ReleasedImage], list[Refused], int]:
    """(images of one class each, equal files once; the others with a reason; number of files)."""
    first: dict[str, ReleasedImage] = {}
    contradicted: set[str] = set()
    refused: list[Refused] = []
    count = 0
    for name, label, content in contents(folder):
        count += 1
        if label not in CLASSES:
            why = f"the path names {label}" if label else "no part of the path names a class"
            reason = f"{why}; give it one of benign and malignant"
            refused.append(Refused(name, "ambiguous" if label else "unlabelled", reason))
            continue
        if not content:
            reason = "the file is empty or cannot be read; download it again"
            refused.append(Refused(name, "damaged", reason))
            continue
        image = ReleasedImage(name, label, sha256(content))
        known = first.setdefault(image.sha256, image)
        if known is not image:
            reason = f"the same image as {known.name}"
            refused.append(Refused(name, "duplicate", reason))
            if known.label != label:
                contradicted.add(image.sha256)
    for key in sorted(contradicted):
        image = first.pop(key)
        reason = "the same image occurs in both classes; keep it in one"
        refused.append(Refused(image.name, "ambiguous", reason))
    return list(first.values()), refused, count
