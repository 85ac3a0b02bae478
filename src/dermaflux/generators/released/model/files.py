"""What stands for a model here: released images and their classes.

They are files of a folder or of a zip archive, whose paths name the class (`class_words`), or rows
of Parquet tables with a column called label. Reads what it is given; writes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dermaflux.core import vocabulary
from dermaflux.core.file_names import IMAGE_SUFFIXES
from dermaflux.core.hashing import sha256
from dermaflux.core.images import ImageError
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError, quoted
from dermaflux.generators.pool.report import Refused
from dermaflux.generators.released.model.archive import is_zip, members, names
from dermaflux.generators.released.model.class_words import labels_in

_ARCHIVES = frozenset((".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar"))
_ROWS = 200  # of a table, read at a time


@dataclass(frozen=True)
class ReleasedImage:
    """One released image."""

    name: str
    """Path relative to the folder, in a table followed by the row's number."""
    label: str
    sha256: str
    """Of the file's bytes."""

    @property
    def diagnosis(self) -> str | None:
        """What the innermost folder is called, as `ingest` harmonises diagnoses."""
        folders = self.name.split("/")[:-1]
        return vocabulary.diagnosis(folders[-1]) if folders else None


def contents(
    folder: Path, wanted: set[str] | None = None
) -> Iterator[tuple[str, str, bytes | ImageError]]:
    """(name, class words, bytes or why there are none) of every image, ordered by file.

    Only `wanted` names when given. The class words are a label, several words joined by "and" where
    the class is unclear, or empty. Raises `InputError` for a table without image or label column,
    and for a damaged archive.
    """
    if folder.is_file() and is_zip(folder):
        for name, content in members(folder, wanted):
            if not _is_passed_over(name):
                yield name, _words(name), _archived(name) or content
        return
    for path in _files(folder):
        name = _printable(path.name if path == folder else path.relative_to(folder).as_posix())
        if path.suffix.lower() == ".parquet":
            if wanted is None or any(image.startswith(f"{name}/") for image in wanted):
                yield from _rows(path, name, wanted)
        elif wanted is None or name in wanted:
            yield name, _words(name), _archived(name) or _read(path)


def named(folder: Path) -> Counter[str]:
    """Class -> files whose names or labels say so; none of them is opened but tables."""
    if folder.is_file() and is_zip(folder):
        return Counter(_words(name) for name in names(folder) if not _is_passed_over(name))
    counts: Counter[str] = Counter()
    for path in _files(folder):
        name = _printable(path.name if path == folder else path.relative_to(folder).as_posix())
        if path.suffix.lower() == ".parquet":
            counts.update(label for _, label, _ in _rows(path, name, None, ("label",)))
        else:
            counts[_words(name)] += 1
    return counts


def _words(name: str) -> str:
    return " and ".join(sorted(labels_in(name)))


def _printable(name: str) -> str:
    """A file's name in Unicode, bytes that are none as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _archived(name: str) -> ImageError | None:
    if Path(name).suffix.lower() not in _ARCHIVES:
        return None
    reason = "the file is an archive; unpack it, or name a zip in synthesize.released.folder"
    return ImageError("archive", reason)


def _is_passed_over(name: str) -> bool:
    """Whether a path is hidden, of a Mac's archive tool, or neither image nor archive."""
    parts = name.split("/")
    return Path(name).suffix.lower() not in IMAGE_SUFFIXES | _ARCHIVES or any(
        part.startswith(".") or part == "__MACOSX" for part in parts
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _files(folder: Path) -> list[Path]:
    """Images, tables and archives, hidden ones and other files left out."""
    if folder.is_file():
        if folder.suffix.lower() != ".parquet":
            raise InputError(
                f"synthesize.released.folder {quoted(str(folder))} is neither a folder nor a zip "
                "archive nor a Parquet table; unpack it and name the folder"
            )
        return [folder]
    if not folder.is_dir():
        raise InputError(
            f"synthesize.released.folder {quoted(str(folder))} does not exist; name the downloaded "
            "folder or zip archive"
        )
    return sorted(
        path
        for path in folder.rglob("*")
        if (path.suffix.lower() == ".parquet" and not path.name.startswith("."))
        or not _is_passed_over(path.relative_to(folder).as_posix())
        if path.is_file()
    )


def _rows(
    path: Path, name: str, wanted: set[str] | None, columns: Sequence[str] = ("image", "label")
) -> Iterator[tuple[str, str, bytes]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if not {"image", "label"} <= set(file.schema_arrow.names):
                raise InputError(
                    f"{path} has columns {', '.join(file.schema_arrow.names)} and not image and "
                    "label; rename them"
                )
            classes = _class_names(file.schema_arrow.metadata or {})
            number = 0
            for batch in file.iter_batches(_ROWS, columns=list(columns)):
                for row in batch.to_pylist():
                    row_name, number = f"{name}/{number:06d}", number + 1
                    if wanted is None or row_name in wanted:
                        yield row_name, _label(row["label"], classes), _bytes(row.get("image"))
    except (pa.ArrowException, OSError) as error:
        reason = quoted(" ".join(str(error).split()))
        raise InputError(
            f"{quoted(str(path))} cannot be read ({reason}); download it again"
        ) from None


def _class_names(metadata: dict[bytes, bytes]) -> list[str]:
    """Names of the integers of a Hugging Face ClassLabel column."""
    try:
        info = json.loads(metadata.get(b"huggingface", b"{}"))
        return [str(name) for name in info["info"]["features"]["label"]["names"]]
    except (ValueError, KeyError, TypeError, RecursionError):  # another writer's, or damaged
        return []


def _label(value: Any, names: list[str]) -> str:
    if isinstance(value, int) and 0 <= value < len(names):
        value = names[value]
    return _words(str(value))


def _bytes(image: Any) -> bytes:
    content = image.get("bytes") if isinstance(image, dict) else image
    return content if isinstance(content, bytes) else b""


def digest(images: Sequence[ReleasedImage]) -> str:
    """Hash of the list of files, which stands for the weights they were made with."""
    lines = sorted(f"{image.sha256} {image.name}" for image in images)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def listing(
    folder: Path, column: Literal["label", "diagnosis"] = "label"
) -> tuple[list[ReleasedImage], list[Refused], int]:
    """(images of one class each, equal files once; the others with a reason; number of files).

    Classes are the values of `column`.
    """
    first: dict[str, ReleasedImage] = {}
    contradicted: set[str] = set()
    refused: list[Refused] = []
    count = 0
    for name, label, content in contents(folder):
        count += 1
        if isinstance(content, ImageError):
            refused.append(Refused(name, content.rule, content.reason))
            continue
        if label not in CLASSES:
            why = f"the path names {label}" if label else "no part of the path names a class"
            reason = f"{why}; put it in a folder called benign or malignant"
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
            if getattr(known, column) != getattr(image, column):
                contradicted.add(image.sha256)
    for key in sorted(contradicted):
        image = first.pop(key)
        reason = "the same image occurs in two classes; keep it in one"
        refused.append(Refused(image.name, "ambiguous", reason))
    return list(first.values()), refused, count
