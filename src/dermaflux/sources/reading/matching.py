"""Which image file each row of a CSV file means: equal names first, then looser readings. Pure.

A reading counts only where it fits one file and one row. Every other one is a clash, and the images
stay without their rows: a wrong label is worse than none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TypeVar

from dermaflux.core.file_names import (
    READABLE_SUFFIXES,
    READINGS,
    Parts,
    Reading,
    composed,
    parts,
    plain,
)

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class Clash:
    """Names and files that fit each other, but not one to one."""

    rows: tuple[str, ...]
    files: tuple[int, ...]


@dataclass
class Matches:
    """Which row each file has."""

    rows: list[str | None]
    """Row of each file, by its `row_name`; several files may have one name and one row."""
    loose: dict[int, str] = field(default_factory=dict)
    """Files whose row names them by less than their path: what the record's id shall be."""
    rewritten: set[int] = field(default_factory=set)
    """Files whose row writes their name differently or puts it in other folders."""
    clashes: list[Clash] = field(default_factory=list)
    spare: set[int] = field(default_factory=set)
    """Files without a row, because the row of their name has a file that fits it better."""


def match(files: Sequence[str], rows: Mapping[str, str], suffix: Callable[[int], str]) -> Matches:
    """Match files to rows.

    `files` are paths below the dataset's folder without suffix, or names without folder; `rows`
    maps each `row_name` to the suffix that the row gives it, `suffix` each file's index to its own.
    A name is read as the end of a file's path, or a file's path as the end of the name, the longest
    common end first and at each length the strictest of `READINGS` first. Linear in the names.
    """
    matches = Matches([name if name in rows else None for name in files])
    _keep_best(matches, rows, suffix)
    taken = set(matches.rows)
    _Search(files, rows, suffix, matches).run(
        [i for i, name in enumerate(matches.rows) if name is None and i not in matches.spare],
        [name for name in rows if name and name not in taken],
    )
    return matches


def _best(files: list[int], row_suffix: str, suffix: Callable[[int], str]) -> list[int]:
    """Of ``x.jpg``, ``x.png`` and ``x.dcm``, those whose suffix a row gives, else the readable."""
    same = [index for index in files if row_suffix and suffix(index) == row_suffix]
    return same or [index for index in files if suffix(index) in READABLE_SUFFIXES] or files


def _keep_best(matches: Matches, rows: Mapping[str, str], suffix: Callable[[int], str]) -> None:
    """Of several files with one name and row, leave those that fit the row best."""
    counts = Counter(matches.rows)
    several: dict[str, list[int]] = {}
    for index, name in enumerate(matches.rows):
        if name is not None and counts[name] > 1:
            several.setdefault(name, []).append(index)
    for name, indices in several.items():
        for index in set(indices).difference(_best(indices, rows[name], suffix)):
            matches.rows[index] = None
            matches.spare.add(index)


class _Search:
    """Rows and files without an equal name, and what may still join them."""

    def __init__(
        self,
        files: Sequence[str],
        rows: Mapping[str, str],
        suffix: Callable[[int], str],
        matches: Matches,
    ) -> None:
        self._files, self._rows, self._suffix, self._matches = files, rows, suffix, matches
        self._read_all = cache(self._ends_of_all)
        self._folders = cache(self._folders_of_all)

    def run(self, files: Iterable[int], rows: Iterable[str]) -> None:
        left_rows = {name: parts(name) for name in rows}
        if not left_rows:
            return
        left_files = {index: parts(self._files[index]) for index in files}
        candidates = []
        for read in READINGS:
            wanted = {read(row[-1]) for row in left_rows.values() if row} - {None}
            named = [
                index for index, file in left_files.items() if file and read(file[-1]) in wanted
            ]
            candidates.append((read, named))
        deepest = min(
            max(map(len, left_rows.values()), default=0),
            max((len(left_files[index]) for _, named in candidates for index in named), default=0),
        )
        for length in range(deepest, 0, -1):
            for read, named in candidates:
                ends = partial(_by_end, length=length, read=read)
                by_row = ends(left_rows)
                by_file = ends({i: left_files[i] for i in named if i in left_files})
                for end, row_names in by_row.items():
                    if end in by_file:
                        self._join(row_names, by_file[end], left_rows, left_files, length, read)

    def _join(
        self,
        rows: list[str],
        files: list[int],
        left_rows: dict[str, Parts],
        left_files: dict[int, Parts],
        length: int,
        read: Reading,
    ) -> None:
        """Match one row and one file whose last `length` parts read alike, or note the clash."""
        if len(rows) == 1 and len(files) > 1:
            best = _best(files, self._rows[rows[0]], self._suffix)
            files = best if len(best) == 1 else files
        if len(rows) == len(files) == 1:
            row, file = left_rows[rows[0]], left_files[files[0]]
            if len(row) > length and not self._is_other_root(row, file, length, read):
                return
            index = files[0]
            self._matches.rows[index] = rows[0]
            self._matches.loose[index] = (
                file[-1] if len(row) == 1 and read is str else self._files[index]
            )
            if read is not str or len(row) > length:
                self._matches.rewritten.add(index)
        else:
            ends = [len(left_rows[name]) == length for name in rows]
            ends += [len(left_files[index]) == length for index in files]
            if min(len(rows), len(files)) > 1 and not any(ends):
                return  # equal names in different folders, as one per patient: no candidates
            self._matches.clashes.append(Clash(tuple(rows), tuple(files)))
        for name in rows:
            del left_rows[name]
        for index in files:
            del left_files[index]

    def _is_other_root(self, row: Parts, file: Parts, length: int, read: Reading) -> bool:
        """Whether a row's path means the file although only its last `length` parts agree.

        These must be unique among all rows and files, and neither of the folders that differ may
        occur on the other side: what a known folder lacks is not a namesake in another one.
        """
        end = _end(row, length, read)
        rows, files = self._read_all(length, read)
        if rows[end] > 1 or files[end] > 1:
            return False
        if len(file) == length:
            return True
        row_folders, file_folders = self._folders(length)
        differing = plain(row[-length - 1]), plain(file[-length - 1])
        return differing[0] not in file_folders and differing[1] not in row_folders

    def _ends_of_all(
        self, length: int, read: Reading
    ) -> tuple[Counter[Parts | None], Counter[Parts | None]]:
        rows = Counter(_end(parts(name), length, read) for name in self._rows)
        return rows, Counter(_end(parts(name), length, read) for name in self._files)

    def _folders_of_all(self, length: int) -> tuple[set[str], set[str]]:
        """Folders that stand before the last `length` parts, in all rows and in all files."""

        def folders(names: Iterable[str]) -> set[str]:
            raw = {path[-length - 1] for path in map(parts, names) if len(path) > length}
            return {plain(folder) for folder in raw}

        return folders(self._rows), folders(self._files)


def _end(path: Parts, length: int, read: Reading) -> Parts | None:
    """The last `length` parts as they are read; None where there are fewer or the name is not."""
    if len(path) < length:
        return None
    name = read(path[-1])
    if name is None:
        return None
    folder = read if read in (str, composed) else plain
    return (*(folder(step) or "" for step in path[-length:-1]), name)


def _by_end(left: Mapping[_Key, Parts], length: int, read: Reading) -> dict[Parts, list[_Key]]:
    ends: dict[Parts, list[_Key]] = {}
    for key, path in left.items():
        end = _end(path, length, read)
        if end is not None:
            ends.setdefault(end, []).append(key)
    return ends
